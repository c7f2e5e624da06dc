"""The search space: a candidate layer as a genotype and as a pure function."""

from evonorms_jax.search_space.catalog import BASELINES, CATALOG, KNOWN, TOKEN_LAYERS
from evonorms_jax.search_space.compiled import compile_graph
from evonorms_jax.search_space.graph import Graph, Node
from evonorms_jax.search_space.norm_act import NormAct
from evonorms_jax.search_space.primitives import LEAVES, OP_NAMES, OPS
from evonorms_jax.search_space.reference import evaluate_reference, reference_batch_moments
from evonorms_jax.search_space.sampling import MUTATIONS, mutate, mutate_gene, random_graph

__all__ = [
    "BASELINES",
    "CATALOG",
    "KNOWN",
    "LEAVES",
    "MUTATIONS",
    "OPS",
    "OP_NAMES",
    "TOKEN_LAYERS",
    "Graph",
    "Node",
    "NormAct",
    "compile_graph",
    "evaluate_reference",
    "mutate",
    "mutate_gene",
    "random_graph",
    "reference_batch_moments",
]
