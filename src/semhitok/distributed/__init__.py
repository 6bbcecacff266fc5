"""The process group and its collectives; in a single process each is a no-op or returns its argument."""

from semhitok.distributed.collectives import (
    all_reduce_sum,
    any_rank,
    average_gradients,
    average_values,
    broadcast_parameters,
    copy_from_first_rank,
    from_main,
    gather_in_sample_order,
    gather_with_gradients,
    main_decides,
    sum_over_ranks,
    wait_for_main,
)
from semhitok.distributed.devices import choose_device
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
    "all_reduce_sum",
    "any_rank",
    "average_gradients",
    "average_values",
    "broadcast_parameters",
    "choose_device",
    "collective_device",
    "copy_from_first_rank",
    "destroy_distributed",
    "from_main",
    "gather_in_sample_order",
    "gather_with_gradients",
    "init_distributed",
    "is_distributed",
    "is_main",
    "main_decides",
    "rank",
    "sum_over_ranks",
    "wait_for_main",
    "world_size",
]
