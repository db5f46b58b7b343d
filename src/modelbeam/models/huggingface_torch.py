"""The weights of a Hugging Face directory, run by PyTorch on the processor."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.machine import call_threads
from modelbeam.models.target import Target
from modelbeam.text import describe


class Weights:
    """A model of ``transformers``; see :class:`modelbeam.models.huggingface.Encoder`.

    Code of the directory is never run, and what it names is not fetched.

    Args:
        target: for messages.
        path: the directory.
        classifies: whether it has a head for classes.

    Raises:
        ModelError: it cannot be loaded, or not without its own code.
    """

    inputs: Sequence[str]
    interface = "Hugging Face (PyTorch)"
    requires: Sequence[str] = ("torch", "transformers", "tokenizers")
    length: int | None = None
    alone = False

    def __init__(self, target: Target, path: str, classifies: bool) -> None:
        torch.set_num_threads(call_threads())
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        kind = (
            transformers.AutoModelForSequenceClassification
            if classifies
            else transformers.AutoModel
        )
        try:
            self._model = kind.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            ).eval()
        except Exception as error:
            said = describe(error)
            if "trust_remote_code" in said:
                raise NotAModelError(
                    f"--model {target} is run by code that lies in the directory, and such code is "
                    f"not run. Write a function around it and name that, 'module:function'."
                ) from error
            raise ModelLoadError(
                f"--model {target} cannot be loaded by transformers {transformers.__version__}: "
                f"{said[:300]}. A file in it is damaged, cut off, or of a newer version."
            ) from error
        if self._model.config.is_encoder_decoder or getattr(
            self._model.config, "is_decoder", False
        ):
            raise NotAModelError(
                f"--model {target} is no encoder of texts. Write a function around it and name "
                f"that, 'module:function'."
            )
        takes = inspect.signature(self._model.forward).parameters
        names = ("input_ids", "attention_mask", "token_type_ids")
        self.inputs = [name for name in names if name in takes]
        self.pools = classifies

    def run(self, given: dict[str, Any]) -> Any:
        """States of the tokens, or logits, as float32 (or float64, if the weights are)."""
        with torch.inference_mode():
            made = self._model(**{name: torch.from_numpy(given[name]) for name in self.inputs})
        found = made.logits if self.pools else made.last_hidden_state
        return (found if found.dtype == torch.float64 else found.float()).numpy()
