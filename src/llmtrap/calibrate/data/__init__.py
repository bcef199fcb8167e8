"""Training data of the calibration tasks: read, split, and described so that a report can say what was used."""

from llmtrap.calibrate.data.images import check_data, mnist_at_hand
from llmtrap.calibrate.data.sets import TaskData, task_data

__all__ = ["TaskData", "check_data", "mnist_at_hand", "task_data"]
