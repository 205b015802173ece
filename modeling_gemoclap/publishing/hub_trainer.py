"""Pushing a trained checkpoint to the Hub, with the checks of `publishing.push`."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitInfo
from transformers import Trainer

from .push import PushError, push_checkpoint, push_failure


class HubTrainer(Trainer):
    """Trainer that pushes a finished checkpoint by `push_checkpoint`. Nothing is pushed during training."""

    def init_hf_repo(self, *args, **kwargs) -> None:
        """As `Trainer.init_hf_repo`, which creates the repository before training.

        Raises:
            PushError: If the Hub refuses or cannot be reached.
        """
        name = self.args.hub_model_id or Path(self.args.output_dir).name
        try:
            super().init_hf_repo(*args, **kwargs)
        except Exception as error:  # the client of the Hub raises errors of several libraries
            raise PushError(f"--push_to_hub true --hub_model_id {name}: {push_failure(error, name)}") from error

    def push_to_hub(
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> CommitInfo | None:
        """Save the model with its card to `output_dir`, and push the checkpoint in one commit.

        Arguments that are None have the values of `hub_token`, `hub_revision` and `hub_private_repo`.

        Args:
            commit_message: Not used: `push_checkpoint` writes the message.
            blocking: Must be true: the commit is complete when the method returns.
            token: Access token.
            revision: Branch to push to, created if it does not exist.
            private: Whether a new repository is private.

        Returns:
            The commit; None on all processes but the main one.

        Raises:
            ValueError: If `blocking` is false, or the folder is not a complete checkpoint.
            PushError: If the Hub refuses or cannot be reached.
        """
        if not blocking:
            raise ValueError("a push returns when its commit is complete: leave out blocking=False")
        token = self.args.hub_token if token is None else token
        revision = self.args.hub_revision if revision is None else revision
        private = self.args.hub_private_repo if private is None else private
        if hasattr(self.callback_handler, "on_push_begin"):  # not in transformers 4.57
            self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if getattr(self, "hub_model_id", None) is None:
            self.args.hub_private_repo = private  # transformers 4.57 has no argument for it
            self.init_hf_repo(token=token)
        self.save_model(_internal_call=True)
        self.create_model_card()
        if not self.is_world_process_zero():
            return None
        options = {"private": private, "revision": revision, "token": token}
        return push_checkpoint(self.args.output_dir, self.hub_model_id, **options)
