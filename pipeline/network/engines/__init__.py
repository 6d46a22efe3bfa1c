"""Run a trained network over tiles: engines differ in speed, and in their rows by rounding only."""

from pipeline.network.engines.base import ENGINES, Engine, default_batch
from pipeline.network.engines.build import build_engine
from pipeline.network.engines.select import EngineRequest, select_engine

__all__ = ["ENGINES", "Engine", "EngineRequest", "build_engine", "default_batch", "select_engine"]
