"""GPUs for a machine that has none: tensors that say they are on one, and refuse what CUDA tensors refuse.

An `OnGpu` holds its numbers in the host's memory and computes there. Everything else is as with CUDA: tensors of two devices do not mix (but for
single numbers of the host, and indices), nothing becomes a numpy array before it was copied to the host, only the host's memory is page-locked.
So a refinement that runs through has no tensor on the wrong device. What this cannot tell: whether CUDA's operations give the same numbers.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

_FACTORIES = ("empty", "zeros", "ones", "full", "arange", "tensor", "as_tensor", "rand", "randn")
_METHODS = ("to", "cuda", "pin_memory")  # of tensors of the host
_LIKE_SELF = ("__getitem__", "__setitem__", "index_put", "index_put_", "copy_", "index", "index_fill_")  # other arguments may be the host's
_FORBIDDEN = ("numpy", "__array__", "pin_memory", "__dlpack__")
_PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "einsum")
_MEMORY = 8 << 30
_HOST = torch.device("cpu")
_real: dict[str, Callable[..., Any]] = {name: getattr(torch, name) for name in (*_FACTORIES, "Generator")}
_real_methods: dict[str, Callable[..., Any]] = {name: getattr(torch.Tensor, name) for name in _METHODS}
_devices_seen: set[torch.device] = set()


class OnGpu(torch.Tensor):
    """A tensor that says it is on GPU `number`."""

    number: int

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return _property(func, args[0])
        if name == "numpy" and kwargs.get("force"):
            return _moved(args[0], _HOST, None, False).numpy()
        if name in _FORBIDDEN:
            raise TypeError(f"{name}: can't convert {_of(args[0])} device type tensor; copy it to the host first")
        if name in ("cpu", "to", "cuda"):
            return _moved(args[0], *_target(name, args, kwargs))
        where = _of(args[0]) if name in _LIKE_SELF else _common(name, args, kwargs)
        if name in _LIKE_SELF and where == _HOST and name != "copy_" and any(_of(each) != _HOST for each in _tensors(args[1:]) if each.ndim):
            raise RuntimeError(f"{name}: a tensor of the host cannot be indexed or filled by one of a GPU")
        if "device" in kwargs:
            where = torch.device(kwargs["device"]) if kwargs["device"] is not None else where
            kwargs["device"] = _HOST
        if name in _PRODUCTS and torch.backends.cuda.matmul.fp32_precision == "tf32":
            args = _rounded(name, args, "out" in kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return _put(func(*args, **kwargs), where)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({_of(self)}, {tuple(self.shape)}, {self.dtype})"


def _rounded(name: str, args: Any, told: bool) -> Any:
    """Operands of a product as TF32 has them, cut off; a product with a vector on the right is none of matrices.

    Only `kernels.matrix_product` may be rounded, and it is known by its `out`.
    """
    left, right = args[:2]
    if right.ndim == 1 or left.dtype not in (torch.float32, torch.complex64):
        return args
    if not told:
        raise RuntimeError(f"{name}: this product would be rounded to TF32")
    with torch._C.DisableTorchFunctionSubclass():
        return tuple((each.contiguous().view(torch.int32) & -(1 << 13)).view(each.dtype).as_subclass(torch.Tensor) for each in args[:2])


def _of(tensor: torch.Tensor) -> torch.device:
    return torch.device("cuda", tensor.number) if isinstance(tensor, OnGpu) else _HOST


def _property(func, tensor: torch.Tensor) -> Any:
    name = func.__self__.__name__
    if name == "device":
        return _of(tensor)
    if name in ("is_cuda", "is_cpu"):
        return isinstance(tensor, OnGpu) == (name == "is_cuda")
    with torch._C.DisableTorchFunctionSubclass():
        return _put(func(tensor), _of(tensor))


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for each in values:
            yield from _tensors(each)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _common(name: str, args: Any, kwargs: dict[str, Any]) -> torch.device:
    """The device of all tensors among the arguments; single numbers of the host may be with any."""
    every = [*_tensors(args), *_tensors(kwargs)]
    found = {_of(each) for each in every if isinstance(each, OnGpu) or each.ndim}
    if len(found) != 1:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {sorted(map(str, found))}")
    return found.pop()


def _put(result: Any, where: torch.device) -> Any:
    """The result of an operation, its tensors on the device `where`."""
    if isinstance(result, torch.Tensor):
        if where == _HOST:
            return result.as_subclass(torch.Tensor) if isinstance(result, OnGpu) else result
        if not (isinstance(result, OnGpu) and getattr(result, "number", None) == (where.index or 0)):
            result = result.as_subclass(OnGpu)
            result.number = where.index or 0
            _devices_seen.add(where)
        return result
    if type(result) in (list, tuple):
        return type(result)(_put(each, where) for each in result)
    if isinstance(result, tuple) and any(True for _ in _tensors(result)):  # a named one, of torch.sort or torch.max
        return type(result)([_put(each, where) for each in result])
    return result


def _target(name: str, args: Any, kwargs: dict[str, Any]) -> tuple[torch.device, torch.dtype | None, bool]:
    """(device, dtype or None, whether a copy is asked for) of a call of `cpu`, `cuda` or `to`."""
    own = _of(args[0])
    if name == "cpu":
        return _HOST, None, False
    if name == "cuda":
        return torch.device("cuda", (args[1] if len(args) > 1 else kwargs.get("device")) or 0), None, False
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for each in args[1:]:
        if isinstance(each, torch.dtype):
            dtype = each
        elif isinstance(each, torch.Tensor):
            device, dtype = _of(each), each.dtype
        elif isinstance(each, torch.device | str):
            device = each
    return own if device is None else torch.device(device), dtype, bool(kwargs.get("copy"))


def _moved(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None, copy: bool) -> torch.Tensor:
    device = torch.device("cuda", device.index or 0) if device.type == "cuda" else device
    with torch._C.DisableTorchFunctionSubclass():
        new = _real_methods["to"](tensor, dtype) if dtype is not None else tensor
        if device != _of(tensor) or copy:  # another memory
            new = new.clone() if new is tensor else new
        return tensor if new is tensor else _put(new.as_subclass(torch.Tensor), device)


class _Generator:
    """Random numbers drawn on a GPU."""

    def __init__(self, device: torch.device | str = _HOST) -> None:
        self.device, self.host = torch.device(device), _real["Generator"]()

    def manual_seed(self, seed: int) -> _Generator:
        self.host.manual_seed(seed)
        return self


def _factory(name: str) -> Callable[..., Any]:
    """torch's function of that name, for all devices."""

    @functools.wraps(_real[name])
    def made(*args: Any, **kwargs: Any) -> Any:
        asked, generator = kwargs.get("device"), kwargs.get("generator")
        if isinstance(generator, _Generator):
            if torch.device(asked or _HOST) != generator.device:
                raise RuntimeError(f"{name}: a generator of {generator.device} draws nothing on {asked}")
            kwargs["generator"] = generator.host
        if asked is None or torch.device(asked).type == "cpu":
            if name == "as_tensor" and asked is not None and isinstance(args[0], OnGpu):
                return _moved(args[0], _HOST, kwargs.get("dtype"), False)
            return _real[name](*args, **kwargs)
        if name in ("tensor", "as_tensor") and isinstance(args[0], torch.Tensor):
            return _moved(args[0], torch.device(asked), kwargs.get("dtype"), name == "tensor")
        return _moved(_real[name](*args, **{**kwargs, "device": _HOST}), torch.device(asked), None, False)

    return made


def _method(name: str) -> Callable[..., Any]:
    """A tensor's method of that name, for all devices."""

    @functools.wraps(_real_methods[name])
    def called(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self, OnGpu):
            return OnGpu.__torch_function__(_real_methods[name], (OnGpu,), (self, *args), kwargs)
        if name == "pin_memory":
            return self
        device, dtype, copy = _target(name, (self, *args), kwargs)
        return _moved(self, device, dtype, copy) if device.type == "cuda" else _real_methods[name](self, *args, **kwargs)

    return called


@contextlib.contextmanager
def pretended(count: int = 1) -> Iterator[set[torch.device]]:
    """Inside, and in all threads, this machine has `count` GPUs. Yields the set of those on which tensors have been."""
    current = threading.local()
    cuda = {
        "device_count": lambda: count,
        "is_available": lambda: True,
        "mem_get_info": lambda device=None: (_MEMORY, _MEMORY),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "set_device": lambda device: setattr(current, "device", torch.device(device).index),
        "current_device": lambda: getattr(current, "device", 0),
        "get_device_name": lambda device=None: "a pretended GPU",
        "get_device_properties": lambda device: SimpleNamespace(uuid=f"pretended-{torch.device(device).index or 0}", name="a pretended GPU"),
        "get_device_capability": lambda device=None: (9, 0),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
    }
    _devices_seen.clear()
    with contextlib.ExitStack() as patches:
        for name, value in cuda.items():
            patches.enter_context(mock.patch.object(torch.cuda, name, value))
        for name in _FACTORIES:
            patches.enter_context(mock.patch.object(torch, name, _factory(name)))
        patches.enter_context(mock.patch.object(torch, "Generator", _Generator))
        for name in _METHODS:
            patches.enter_context(mock.patch.object(torch.Tensor, name, _method(name)))
        yield _devices_seen
