"""Training data of the calibration tasks: read, split, and described so that a report can say what was used."""

from llmtrap.calibrate.data.examples import TaskData
from llmtrap.calibrate.data.sets import check_data, mnist_at_hand, task_data

__all__ = ["TaskData", "check_data", "mnist_at_hand", "task_data"]
