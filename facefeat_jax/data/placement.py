"""Where arrays lie: all devices in one row, batches and tables split over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


class Placement:
    """The devices of a run, of all its processes, and how its arrays are laid over them.

    Attributes:
      mesh: all devices, along one axis; those of a process stand together.
      replicated: for what each device has a copy of: the state of training.
      batches: for `[steps, batch, ...]`, split along the batch.
      table: for `[n, ...]`, split along the rows.
      local: the same for the devices of this process alone; itself, where there is one process.

    Args:
      devices: the default is all there are.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        chosen = sorted(jax.devices() if devices is None else devices, key=lambda one: (one.process_index, one.id))
        # Auto axes: with explicit ones, indexing and a convolution's gradient raise a ShardingTypeError.
        self.mesh = Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.batches = NamedSharding(self.mesh, PartitionSpec(None, AXIS))
        self.table = NamedSharding(self.mesh, PartitionSpec(AXIS))
        mine = [device for device in chosen if device.process_index == jax.process_index()]
        self._first = chosen.index(mine[0]) if mine else 0
        self.local: Placement = self if len(mine) == len(chosen) else Placement(mine)
        self._one_at_a_time = len(mine) > 1 and mine[0].platform == "cpu"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placement) and self.mesh == other.mesh

    def __hash__(self) -> int:
        return hash(self.mesh)

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return self.mesh.size

    @property
    def device(self) -> jax.Device:
        """The first of this process's devices, for what is the same on all."""
        return self.local.mesh.devices.flat[0]

    @property
    def is_shared(self) -> bool:
        """Whether other processes have a part of the devices."""
        return self.local is not self

    def round_up(self, count: int) -> int:
        """Returns the least multiple of the number of devices that is not below `count`."""
        return -(-count // self.num_devices) * self.num_devices

    def share(self, count: int) -> slice:
        """Returns which rows of a batch or table lie on this process's devices.

        Args:
          count: number of rows, a multiple of the number of devices.
        """
        each = count // self.num_devices
        return slice(self._first * each, (self._first + self.local.num_devices) * each)

    def in_turn(self, results: Any) -> Any:
        """Returns the results of a program over these devices; with several CPU devices, once all of them are there.

        Every call of such a program passes through here, so that with several CPU devices no two are ever in flight at
        once: where devices exchange values, each waits in a thread for the others, XLA has one thread for each core,
        and the threads of two programs can wait for one another for good, which XLA ends after 40 s by ending the
        process. JAX's `jax_cpu_enable_async_dispatch=False` does not prevent it. With one CPU device, and on
        accelerators, which keep the order of programs themselves, nothing waits here.
        """
        return jax.block_until_ready(results) if self._one_at_a_time else results

    def split(self, batch: Any) -> Any:
        """Says, inside jit, that the arrays `[batch, ...]` of a step are split over the devices."""
        if self.num_devices == 1:
            return batch
        return jax.lax.with_sharding_constraint(batch, self.table)

    def replicate(self, values: Any) -> Any:
        """Returns arrays, which are the same in every process, with a copy on each device."""
        if not self.is_shared:
            return jax.device_put(values, self.replicated)

        def spread(value: Any) -> jax.Array:
            value = np.asarray(jax.device_get(value))
            return jax.make_array_from_process_local_data(self.replicated, value, value.shape)

        return jax.tree.map(spread, values)

    def shapes(self, values: Any) -> Any:
        """Returns shapes in place of arrays that each device has a copy of: what programs are compiled for."""
        return jax.tree.map(
            lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=self.replicated), values
        )

    def own_copies(self, replicated: Any) -> Any:
        """Returns replicated arrays as arrays of this process's devices alone."""
        if not self.is_shared:
            return replicated
        return jax.device_put(jax.tree.map(lambda value: value.addressable_data(0), replicated), self.local.replicated)

    def join(self, values: Any, sharding: NamedSharding) -> Any:
        """Returns global arrays, of which each process gives its own share."""
        if not self.is_shared:
            return jax.device_put(values, sharding)
        return jax.tree.map(lambda value: jax.make_array_from_process_local_data(sharding, value), values)

    def join_table(self, values: jax.Array) -> jax.Array:
        """Returns a table split over all devices, of which each process has its share on its own, without copying."""
        if not self.is_shared:
            return values
        shape = (values.shape[0] // self.local.num_devices * self.num_devices, *values.shape[1:])
        shards = sorted(values.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return jax.make_array_from_single_device_arrays(shape, self.table, [shard.data for shard in shards])

    def least(self, value: int) -> int:
        """Returns the least of what the processes give: for what all have to decide alike."""
        if not self.is_shared:
            return value
        from jax.experimental import multihost_utils

        return int(multihost_utils.process_allgather(np.int32(value)).min())
