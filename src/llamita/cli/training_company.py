"""Who hears of a training run on the terminal, before its live line begins and after it has ended. All of it on stderr."""

from pathlib import Path

from llamita.cli.progress import ShownProgress
from llamita.train.company import Company
from llamita.train.plan import Plan


class TerminalCompany(ShownProgress, Company):
    """Shows progress on text, the plan in a few lines, and what to do with the finished model."""

    def __init__(self) -> None:
        super().__init__("reading text")

    def planned(self, plan: Plan) -> None:
        """Show the plan in short; `llamita plan` has its reasons."""
        model, training = plan.recipe.model, plan.recipe.training
        tokens = training.sequences_per_update * model.context
        self.say(
            f"model: {model.n_parameters:,} parameters: width {model.width}, {model.n_layers} layers, {model.n_heads} heads "
            f"({model.n_kv_heads} key/value), mlp {model.mlp_width}, vocabulary {model.vocab_size:,}, context {model.context}"
        )
        self.say(
            f"training: {training.n_steps:,} updates of {tokens:,} tokens, {training.optimizer}, learning rate "
            f"{training.learning_rate:g}, {training.dtype}{', compiled' if training.compile else ''}; about "
            f"{plan.hours * 60:,.0f} minutes at {plan.tokens_per_second:,.0f} tokens/s"
        )
        for warning in plan.warnings:
            self.say(f"note: {warning}")

    def training_begins(self) -> None:
        """Leave the terminal to the recorder's live line."""
        self.stop()

    def finished(self, folder: Path) -> None:
        """Write the report and say how to go on."""
        from llamita.train.report import write_report

        path = write_report(folder)
        self.say(f"done; curves and samples: {path}\ntalk to it: llamita run {folder}")

    def stopped(self, folder: Path) -> None:
        """Say how to go on."""
        self.say(f"stopped and saved; go on with: llamita train --out {folder} --resume")


class SweepCompany(TerminalCompany):
    """Shows how far a whole sweep is, instead of a line for each of its trainings."""

    def training_begins(self) -> None:
        """From now on updates are counted."""
        self.begin_again("updates", in_bytes=False)
