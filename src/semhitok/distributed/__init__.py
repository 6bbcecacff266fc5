"""The process group and its collectives; in a single process each is a no-op or returns its argument."""

from semhitok.distributed.agreement import different_tensors, named_tensors, require_agreement
from semhitok.distributed.collectives import (
    all_reduce_sum,
    any_rank,
    average_values,
    broadcast_parameters,
    copy_from_first_rank,
    gather_in_sample_order,
    gather_values,
    gather_with_gradients,
    sum_over_ranks,
)
from semhitok.distributed.devices import choose_device
from semhitok.distributed.failure import ended_together, stop_watching, watch_other_ranks
from semhitok.distributed.gradients import averaged_gradients
from semhitok.distributed.processes import (
    collective_device,
    destroy_distributed,
    init_distributed,
    is_distributed,
    is_main,
    rank,
    world_size,
)
from semhitok.distributed.sharding import (
    DeviceMesh,
    ShardableParts,
    gather_on_main,
    is_sharded,
    reduce_between_nodes,
    shard,
    shard_mesh,
    whole_tensor,
)
from semhitok.distributed.waiting import (
    OtherRankError,
    from_main,
    leave_together,
    main_decides,
    main_tells,
    wait_for_all,
    wait_for_main,
)

__all__ = [
    "DeviceMesh",
    "OtherRankError",
    "ShardableParts",
    "all_reduce_sum",
    "any_rank",
    "average_values",
    "averaged_gradients",
    "broadcast_parameters",
    "choose_device",
    "collective_device",
    "copy_from_first_rank",
    "destroy_distributed",
    "different_tensors",
    "ended_together",
    "from_main",
    "gather_in_sample_order",
    "gather_on_main",
    "gather_values",
    "gather_with_gradients",
    "init_distributed",
    "is_distributed",
    "is_main",
    "is_sharded",
    "leave_together",
    "main_decides",
    "main_tells",
    "named_tensors",
    "rank",
    "reduce_between_nodes",
    "require_agreement",
    "shard",
    "shard_mesh",
    "stop_watching",
    "sum_over_ranks",
    "wait_for_all",
    "wait_for_main",
    "watch_other_ranks",
    "whole_tensor",
    "world_size",
]
