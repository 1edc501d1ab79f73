"""What good means for a model: batches, loss and metric."""

from paredown.tasks.base import Batch, Predictions, Scores, Task
from paredown.tasks.classification import ImageClassification, SequenceClassification
from paredown.tasks.custom import Custom, custom
from paredown.tasks.demos import load
from paredown.tasks.language import LanguageModelling
from paredown.tasks.speech import SpeechRecognition

__all__ = [
    "Batch",
    "Custom",
    "ImageClassification",
    "LanguageModelling",
    "Predictions",
    "Scores",
    "SequenceClassification",
    "SpeechRecognition",
    "Task",
    "custom",
    "load",
]
