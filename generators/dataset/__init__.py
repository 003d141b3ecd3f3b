"""All samples to one dataset: judged by the quality gates, split into train and valid, reported."""

from generators.dataset.build import REJECTED, build
from generators.dataset.quality import DatasetErrors, Violation
from generators.dataset.report import summary

__all__ = ["REJECTED", "DatasetErrors", "Violation", "build", "summary"]
