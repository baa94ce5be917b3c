"""Where this process stands among others: from flags, or from what has started it."""

import os
from typing import NamedTuple

FLAGS = "--coordinator HOST:PORT --processes N --process I"


class Place(NamedTuple):
    """One process of several.

    Attributes:
      coordinator: HOST:PORT at which process 0 listens.
      processes: how many there are, at least 2.
      process: which one this is.
      device_ids: those of this machine's GPUs that it uses; None: all that it sees.
    """

    coordinator: str
    processes: int
    process: int
    device_ids: list[int] | None = None


def find_place(
    coordinator: str | None, processes: int | None, process: int | None, timeout: float
) -> Place | None:
    """What is not given is asked of jax, which knows TPU pods, SLURM and the like.

    Returns:
      None where there is one process only.

    Raises:
      ValueError: if what is given and found is no place.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    given = (coordinator, processes, process)
    if processes == 1:
        return None
    found = (*given, None) if None not in given else _detect(given, timeout)
    if not any(part is not None for part in found[:3]) or found[1] == 1:
        return None
    return _checked(Place(*found))


def _detect(given: tuple, timeout: float) -> tuple:
    """(coordinator, processes, process, device ids) of the environment, or Nones.

    jax has no public name for this, and its `initialize`, which has it inside, aborts
    when others are missing: too late to say who.
    """
    from jax._src.clusters import ClusterEnv  # noqa: TID251

    try:
        *found, device_ids = ClusterEnv.auto_detect_unset_distributed_params(
            *given,
            local_device_ids=None,
            cluster_detection_method=None,
            initialization_timeout=round(timeout),
        )
        # Which GPUs it is, jax reads from there itself.
        said = "JAX_LOCAL_DEVICE_IDS" in os.environ
        return (*found, None if said else device_ids)
    except Exception as error:
        raise ValueError(
            f"this looks like one of several processes, but jax cannot find out which: "
            f"{type(error).__name__}: {error}; say {FLAGS}, or --processes 1 if it is "
            "alone"
        ) from error


def _checked(place: Place) -> Place:
    names = ("--coordinator", "--processes", "--process")
    missing = [name for name, part in zip(names, place, strict=False) if part is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} missing, and nothing in the environment says it: "
            f"several processes need {FLAGS}"
        )
    host, _, port = place.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"--coordinator {place.coordinator} is no HOST:PORT, for instance "
            "node-0:4321: the machine of process 0 and a port that is free there"
        )
    if not 0 <= place.process < place.processes:
        raise ValueError(
            f"--process {place.process} of --processes {place.processes}: processes "
            f"are counted from 0 to {place.processes - 1}"
        )
    return place
