"""How a verb uses the devices of its process: they share each batch, whole models each.

Several processes have batches of their own, so that no device waits for another's.
"""

import math


def own_mesh():
    """A mesh of this process's devices, all along `data`; None: there is but one."""
    import jax

    from taming_jax.training.mesh import create_mesh
    from taming_jax.training.recipe import Mesh

    devices = jax.local_devices()
    return create_mesh(Mesh(), devices) if len(devices) > 1 else None


def batch_over(batch_size: int) -> int:
    """The batch size, enlarged to what all processes' devices divide equally."""
    import jax

    from taming_jax import processes

    shares = math.lcm(*processes.gather("devices", jax.local_device_count()))
    return math.ceil(batch_size / shares) * shares
