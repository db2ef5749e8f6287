"""Where arrays lie: all devices in one row, batches and tables split over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


class Placement:
    """The devices of a run and how its arrays are laid over them.

    Attributes:
      mesh: all devices, along one axis.
      replicated: for what each device has a copy of: the state of training.
      batches: for `[steps, batch, ...]`, split along the batch.
      table: for `[n, ...]`, split along the rows.

    Args:
      devices: the default is all there are.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        # Auto axes: with explicit ones, indexing and a convolution's gradient raise a ShardingTypeError.
        chosen = np.array(jax.devices() if devices is None else devices)
        self.mesh = Mesh(chosen, (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.batches = NamedSharding(self.mesh, PartitionSpec(None, AXIS))
        self.table = NamedSharding(self.mesh, PartitionSpec(AXIS))

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return self.mesh.size

    @property
    def device(self) -> jax.Device:
        """The first of the devices, for what is the same on all."""
        return self.mesh.devices.flat[0]

    def round_up(self, count: int) -> int:
        """Returns the least multiple of the number of devices that is not below `count`."""
        return -(-count // self.num_devices) * self.num_devices

    def split(self, batch: Any) -> Any:
        """Says, inside jit, that the arrays `[batch, ...]` of a step are split over the devices."""
        if self.num_devices == 1:
            return batch
        return jax.lax.with_sharding_constraint(batch, self.table)
