"""Processes and what they tell each other; everything here does nothing, or the obvious, in a single process."""

from semhitok.distributed.collectives import (
    any_rank,
    average_gradients,
    average_values,
    broadcast_parameters,
    copy_from_first_rank,
    from_main,
    gather_in_sample_order,
    gather_with_gradients,
    sum_over_ranks,
    wait_for_main,
)
from semhitok.distributed.processes import (
    collective_device,
    destroy_distributed,
    init_distributed,
    is_distributed,
    is_main,
    rank,
    world_size,
)

__all__ = [
    "any_rank",
    "average_gradients",
    "average_values",
    "broadcast_parameters",
    "collective_device",
    "copy_from_first_rank",
    "destroy_distributed",
    "from_main",
    "gather_in_sample_order",
    "gather_with_gradients",
    "init_distributed",
    "is_distributed",
    "is_main",
    "rank",
    "sum_over_ranks",
    "wait_for_main",
    "world_size",
]
