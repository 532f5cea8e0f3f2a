"""Who hears of fine-tuning on the terminal: chats as they are learned, the plan, how to go on. All but the chats on stderr."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from llamita.cli.progress import ShownProgress, counted
from llamita.cli.show_examples import show
from llamita.train.finetune_company import FinetuneCompany
from llamita.train.ledger import amount

if TYPE_CHECKING:
    from llamita.data.examples import ChatData
    from llamita.train.base import Base
    from llamita.train.finetune_plan import FinetunePlan


class TerminalFinetuneCompany(ShownProgress, FinetuneCompany):
    """Shows progress on chats, n_examples of them, the plan in a few lines, and what to do with what was trained."""

    def __init__(self, n_examples: int) -> None:
        super().__init__("reading chats")
        self._n_examples = n_examples

    def prepared(self, data: "ChatData", base: "Base") -> None:
        """Show some of them, on stdout."""
        self.stop()
        if self._n_examples:
            show(data, base.tokenizer, self._n_examples)
        if base.n_new:
            marks = sorted(base.tokenizer.special_tokens.items(), key=lambda item: item[1])
            new = [mark for mark, token_id in marks if base.n_known <= token_id < base.n_known + base.n_new]
            self.say(f"new tokens, for the template {base.template.name}: {', '.join(new)}")

    def planned_finetuning(self, plan: "FinetunePlan", base: "Base") -> None:
        """Show the plan in short."""
        model, training, finetuning = plan.recipe.model, plan.recipe.training, plan.recipe.finetuning
        assert finetuning is not None
        method = f"LoRA of rank {finetuning.lora_rank}" if finetuning.lora_rank else "all weights"
        goal = "answers" if finetuning.objective == "answers" else f"preferences (DPO, beta {finetuning.beta:g})"
        self.say(f"{base.name}: {model.n_parameters:,} parameters; {goal}, {method}: {plan.n_trained:,} numbers are trained")
        self.say(
            f"training: {training.n_steps:,} updates of {training.sequences_per_update} x {finetuning.row_tokens} tokens, "
            f"learning rate {training.learning_rate:g}, {training.dtype}{', compiled' if training.compile else ''}; about "
            f"{amount(plan.memory_bytes, 'B')} of memory, and perhaps {max(1.0, plan.minutes):,.0f} min"
        )
        for warning in plan.warnings:
            self.say(f"note: {warning}")

    def counting(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar of its own."""
        return counted(title, total, in_bytes=False)

    def training_begins(self) -> None:
        """Leave the terminal to the recorder's live line."""
        self.stop()

    def finished(self, folder: Path) -> None:
        """Write the report and say how to go on."""
        from llamita.train.config import read_recipe
        from llamita.train.report import write_report
        from llamita.train.run_folder import RECIPE_FILE, read_run

        recipe, path = read_recipe(folder / RECIPE_FILE), write_report(folder)
        is_adapter = recipe.finetuning is not None and recipe.finetuning.lora_rank > 0
        chat = f"llamita chat {read_run(folder)['model_name']} --adapter {folder}" if is_adapter else f"llamita chat {folder}"
        self.say(f"done; curves and answers: {path}\ntalk to it: {chat}")

    def stopped(self, folder: Path) -> None:
        """Say how to go on."""
        self.say(f"stopped and saved; go on with: llamita finetune --out {folder} --resume")
