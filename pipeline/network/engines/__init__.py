"""Engines: ways of running a trained network over tiles, which differ in speed and little else."""

from pipeline.network.engines.base import ENGINES, Engine, default_batch
from pipeline.network.engines.build import build_engine
from pipeline.network.engines.select import Choice, choose_engine

__all__ = ["ENGINES", "Choice", "Engine", "build_engine", "choose_engine", "default_batch"]
