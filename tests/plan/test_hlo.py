"""Bytes between devices, counted in programs whose traffic is known."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from instructgpt.plan.hlo import (
    collective_bytes,
    computations,
    gathered_shapes,
    shape_bytes,
)
from instructgpt.plan.machines import tpu
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages.programs import Trips
from tests import tiny

PROGRAM = """\
HloModule jit_f, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = bf16[16,4]{1,0:T(8,128)} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %s = (f32[8]{0}, f32[2]{0}) reduce-scatter-start(%y), replica_groups={{0,1,2,3}}
}

%cond (p: (s32[], f32[8])) -> pred[] {
  %lt = pred[] compare(%i, %n), direction=LT
}

%started (p: f32[4]) -> f32[8] {
  %h = f32[8]{0} all-gather(%p), replica_groups=[4,2]<=[8], dimensions={0}
}

%async_collective_fusion.1 (p: f32[4]) -> f32[8] {
  %i = f32[8]{0} all-gather(%p), replica_groups=[4,2]<=[8], dimensions={0}
}

%counted (p: (s32[], f32[8])) -> pred[] {
  %k = s32[]{:T(128)} constant(14)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %lt = pred[] compare(%i, %k), direction=LT
}

%twos (p: (f32[8], s32[])) -> (f32[8], s32[]) {
  %g = bf16[16,4]{1,0:T(8,128)} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %i = s32[]{:T(128)} get-tuple-element(%p), index=1
  %two = s32[]{:T(128)} constant(2)
  %n = s32[]{:T(128)} add(%i, %two)
  ROOT %t = (f32[8]{0}, s32[]{:T(128)}) tuple(%x, %n)
}

%data (p: (f32[8], s32[])) -> (f32[8], s32[]) {
  %g = bf16[16,4]{1,0:T(8,128)} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %i = s32[]{:T(128)} get-tuple-element(%p), index=1
  %m = s32[]{:T(128)} fusion(%x)
  %n = s32[]{:T(128)} add(%i, %m)
  ROOT %t = (f32[8]{0}, s32[]{:T(128)}) tuple(%x, %n)
}

%all-reduce-scatter.1 (p: f32[8]) -> f32[4] {
  %r = f32[8]{0} all-reduce(%p), replica_groups=[4,2]<=[8], to_apply=%add
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %v = (s32[], f32[8]) while(%w), condition=%cond, body=%body
  %u = (f32[8], s32[]) while(%v), condition=%counted, body=%twos
  %d = (f32[8], s32[]) while(%u), condition=%counted, body=%data
  %f = f32[4]{0} fusion(%u), kind=kCustom, calls=%all-reduce-scatter.1
  %async-collective-start = f32[8] fusion(%f), kind=kCustom, calls=%started
  %o = f32[8] fusion(%f), kind=kCustom, calls=%async_collective_fusion.1
  %async-collective-done = f32[8] fusion(%o), kind=kCustom, calls=%started
  %m = bf16[8]{0} all-to-all(%f), replica_groups=mesh['a'=2,'b'=4] {'a','b'}
  %c = f32[10]{0} collective-permute(%f), source_target_pairs={{0,1},{1,0}}
  ROOT %a = f32[6]{0} all-reduce(%c), replica_groups={{0,1,2}}, to_apply=%add
}
"""  # noqa: E501


def test_what_is_gathered_is_found():
    assert gathered_shapes(PROGRAM) == {(16, 4), (8,)}
    assert not gathered_shapes("")


def test_loops_count_as_often_as_they_run():
    found = collective_bytes(PROGRAM, trips=Trips(5))
    # Three times, as often as is said, from 0 to 14 by twos, and as the data says.
    assert found["all-gather"] == (3 + 5 + 7 + 5) * 16 * 4 * 2 * 3 / 4 + 16
    assert found["collective-permute"] == 40
    assert found["all-to-all"] == 16 * 7 / 8
    assert found["all-reduce"] == 2 * 24 * 2 / 3
    # The larger of the first one's arrays is what goes in.
    assert found["reduce-scatter"] == (3 + 5) * 32 * 3 / 4 + 32 / 2


def test_a_loop_in_a_loop_counts_for_itself():
    """As the sampler's: steps until slots are free, until none waits; then more."""

    def run(x: jax.Array) -> jax.Array:
        def total(x):
            return jax.lax.with_sharding_constraint(x.sum(axis=0), whole)

        def step(state):
            sums = total(state[0])
            return state[0] + sums[None], sums[0]

        def outer(state):
            x, _ = jax.lax.while_loop(lambda s: s[1] < 10.0, step, state)
            sums = total(x)
            return x - sums[None], sums[0]

        state = x, x[0, 0]
        state = jax.lax.while_loop(lambda s: s[1] > 0.0, outer, state)
        return jax.lax.while_loop(lambda s: s[1] < 10.0, step, state)[0]

    cut = NamedSharding(tiny.mesh_of(8), PartitionSpec("data"))
    whole = NamedSharding(tiny.mesh_of(8), PartitionSpec())
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=cut)
    text = jax.jit(run, out_shardings=cut).lower(x).compile().as_text()

    def sent(*trips: int) -> float:
        return collective_bytes(text, trips=Trips(*trips))["all-reduce"]

    none = sent(0, 0, 0)
    alone, outer = sent(1, 0, 0) - none, sent(0, 1, 0) - none
    inner = sent(0, 1, 1) - none - outer
    assert alone == inner == outer == 2 * 64 * 7 / 8
    assert sent(0, 0, 9) == none
    assert sent(5, 3, 2) == none + 5 * alone + 3 * (outer + 2 * inner)


def test_computations_know_the_entry():
    entry, lines = computations(PROGRAM)
    assert entry == "main"
    assert {"body", "cond", "all-reduce-scatter.1", "main"} <= lines.keys()
    assert len(lines["main"]) == 11


def test_bytes_of_types():
    assert shape_bytes("(bf16[2,3]{1,0}, pred[4], s32[])") == [12, 4, 4]
    assert shape_bytes("s4[10] f8e4m3fn[3]") == [5, 3]


@pytest.mark.parametrize("trips", [1, 6])
def test_a_compiled_loop_sends_what_its_sums_do(trips):
    mesh = tiny.mesh_of(8)
    cut = NamedSharding(mesh, PartitionSpec(None, "data"))
    whole = NamedSharding(mesh, PartitionSpec())

    def run(x: jax.Array) -> jax.Array:
        def body(total, _):
            # A sum over devices of [16] in each turn.
            return jax.lax.with_sharding_constraint(x @ (total + 1.0), whole), None

        return jax.lax.scan(body, jnp.zeros((16,)), None, length=trips)[0]

    x = jax.ShapeDtypeStruct((16, 16), jnp.float32, sharding=cut)
    text = jax.jit(run, out_shardings=whole).lower(x).compile().as_text()
    assert (
        collective_bytes(text, trips=Trips(9))["all-reduce"] == trips * 2 * 64 * 7 / 8
    )


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler is installed"
)
def test_a_tpu_receives_the_weights_that_it_lacks():
    """Also where it multiplies by one part while the next is on its way."""
    mesh = make_mesh(MeshConfig(fsdp=16, data=1), devices=tpu("v5e:4x4").devices)
    cut = NamedSharding(mesh, PartitionSpec("fsdp", None))
    x = jax.ShapeDtypeStruct((16 * 2048, 4096), jnp.bfloat16, sharding=cut)
    w = jax.ShapeDtypeStruct((4096, 8192), jnp.bfloat16, sharding=cut)
    text = jax.jit(jnp.dot, out_shardings=cut).lower(x, w).compile().as_text()
    assert "windowed_dot" in text
    # The loop passes on two parts more than anyone lacks.
    assert sum(collective_bytes(text).values()) == w.size * 2 * (15 + 2) / 16
