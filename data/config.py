"""``cfg``: the 25 settings of Fast R-CNN's training and testing, with the original's defaults.

Every module reads the one object ``cfg`` when it runs, so a file or a command line changes them all:

    cfg_from_file("experiments/cfgs/multiscale.yml")
    cfg_from_list(["TRAIN.SCALES", "(480, 600)", "TEST.NMS", "0.4"])

A key must exist and its value must have the type of the default. Two conversions are made because
YAML cannot say otherwise: int -> float, and list -> tuple or array. Nothing is changed when any key
of a file or list is wrong.
"""

from __future__ import annotations

import ast
import copy
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from caffe_lite.errors import DataError, did_you_mean


class ConfigError(DataError, KeyError):
    """An unknown setting (KeyError) or one of the wrong type (ValueError)."""

    __str__ = Exception.__str__  # KeyError would print the repr of the message


class AttrDict(dict[str, Any]):
    """A dictionary whose keys are attributes too.

    Attributes can only be read and replaced, so that a misspelt ``cfg.TRAIN.BATCHSIZE = 64`` fails;
    a new key is added as an item, ``cfg["NEW"] = 1``.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no setting {name!r}{did_you_mean(name, self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self:
            raise AttributeError(f"no setting {name!r}{did_you_mean(name, self)}")
        self[name] = value


def _defaults() -> AttrDict:
    train = AttrDict(
        SCALES=(600,),  # shortest side in pixels; one is drawn for each image
        MAX_SIZE=1000,  # cap on the longest side, pixels
        IMS_PER_BATCH=2,
        BATCH_SIZE=128,  # RoIs in a minibatch, over all its images
        FG_FRACTION=0.25,  # at most this share of them is foreground
        FG_THRESH=0.5,  # foreground: overlap >= FG_THRESH
        BG_THRESH_HI=0.5,  # background: overlap in [BG_THRESH_LO, BG_THRESH_HI)
        BG_THRESH_LO=0.1,
        USE_FLIPPED=True,  # append the mirrored images
        BBOX_REG=True,  # train box regression
        BBOX_THRESH=0.5,  # RoIs with overlap >= BBOX_THRESH get regression targets
        SNAPSHOT_ITERS=10000,
        SNAPSHOT_INFIX="",  # prefix[_infix]_iter_N.caffemodel
        USE_PREFETCH=False,  # read the next minibatch's images in a thread
    )
    test = AttrDict(
        SCALES=(600,),  # the image pyramid
        MAX_SIZE=1000,
        NMS=0.3,  # suppress boxes that overlap a better one by this much
        SVM=False,  # score with cls_score (SVMs) rather than cls_prob (softmax)
        BBOX_REG=True,
    )
    return AttrDict(
        TRAIN=train,
        TEST=test,
        DEDUP_BOXES=1.0 / 16.0,  # RoIs equal after scaling by this count as one; 0 turns it off
        PIXEL_MEANS=np.array([[[102.9801, 115.9465, 122.7717]]]),  # B, G, R
        RNG_SEED=3,
        EPS=1e-14,
        ROOT_DIR=os.curdir,  # output/ is put here; relative to the working directory
        EXP_DIR="default",  # folder in output/
    )


cfg = _defaults()


def get_output_dir(imdb: Any, net: Any = None) -> str:
    """The absolute folder ROOT_DIR/output/EXP_DIR/imdb.name[/net.name]; it is not created."""
    parts = [cfg.ROOT_DIR, "output", cfg.EXP_DIR, imdb.name]
    if net is not None:
        parts.append(net.name)
    return os.path.abspath(os.path.join(*parts))


def cfg_from_file(path: str | os.PathLike[str]) -> None:
    """Merge a YAML file into ``cfg``.

    The loader is YAML's safe one, plus ``!!python/tuple``, which the original's files use.

    Raises ConfigError naming the file and the key (unknown, or a value of another type), or that
    the file cannot be read or is not YAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Builds plain values only."""

    def as_tuple(loader: Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
        return tuple(loader.construct_sequence(node, deep=True))

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", as_tuple)
    where = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as stream:
            loaded = Loader(stream).get_single_data()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: cannot read the settings: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: not a YAML file of settings: {error}") from error
    if loaded is None:
        return
    changed = copy.deepcopy(cfg)
    _merge(loaded, changed, where, "")
    _replace(cfg, changed)


def cfg_from_list(pairs: Sequence[str]) -> None:
    """Merge ``[KEY, VALUE, KEY, VALUE, ...]`` into ``cfg``; KEY is dotted, ``TRAIN.SCALES``.

    A VALUE is a Python literal (``(480, 600)``, ``False``, ``0.4``) or else taken as text.
    """
    if len(pairs) % 2:
        raise ConfigError(f"--set: expected KEY VALUE pairs, got {len(pairs)} words: {' '.join(map(str, pairs))}")
    changed = copy.deepcopy(cfg)
    for key, text in zip(pairs[0::2], pairs[1::2], strict=True):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = text
        *path, last = key.split(".")
        nested: dict[str, Any] = {last: value}
        for name in reversed(path):
            nested = {name: nested}
        _merge(nested, changed, "--set", "")
    _replace(cfg, changed)


def reset_cfg() -> None:
    """Put every setting back to its default."""
    _replace(cfg, _defaults())


@contextmanager
def preserved_cfg() -> Iterator[AttrDict]:
    """Within the ``with`` block ``cfg`` may be changed freely; afterwards it is what it was before."""
    before = copy.deepcopy(cfg)
    try:
        yield cfg
    finally:
        _replace(cfg, before)


def _replace(target: AttrDict, source: AttrDict) -> None:
    """Give ``target`` the content of ``source``, keeping the AttrDict objects that others hold."""
    for key in [key for key in target if key not in source]:
        del target[key]
    for key, value in source.items():
        if isinstance(value, AttrDict) and isinstance(target.get(key), AttrDict):
            _replace(target[key], value)
        else:
            target[key] = value


def _merge(new: Any, into: AttrDict, where: str, prefix: str) -> None:
    if not isinstance(new, Mapping):
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'the file'}: expected settings (KEY: value), got {new!r}")
    for key, value in new.items():
        if key not in into:
            raise ConfigError(f"{where}: no setting {prefix}{key}{did_you_mean(str(key), into)}")
        if isinstance(into[key], AttrDict):
            _merge(value, into[key], where, f"{prefix}{key}.")
        else:
            into[key] = _like(into[key], value, where, f"{prefix}{key}")


def _like(default: Any, value: Any, where: str, key: str) -> Any:
    """``value`` in the type of ``default``, or a ConfigError."""

    def wrong(expected: str) -> ConfigError:
        hint = ""
        if isinstance(value, str) and not isinstance(default, str):
            try:
                hint = f"; YAML reads {value} as text, write it as {float(value):.1e}"
            except ValueError:
                pass
        return ConfigError(f"{where}: {key}: expected {expected}, got {type(value).__name__} {value!r}{hint}")

    if isinstance(default, np.ndarray):
        try:
            array = np.array(value, dtype=np.float64)
            if array.size == default.size and np.isfinite(array).all():
                return array.reshape(default.shape)
        except (TypeError, ValueError, OverflowError):
            pass
        raise wrong(f"{default.size} numbers")
    if isinstance(default, tuple):
        if isinstance(value, (list, tuple)) and value and all(_is_number(item) for item in value):
            return tuple(value)
        raise wrong("a list of numbers")
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise wrong(type(default).__name__)
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong("a finite number")
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
