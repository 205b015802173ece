"""Numbers at their limits: finite embeddings, losses, gradients and statistics, or a clear error.

Losses on degenerate batches; statistics and calibration of degenerate predictions; extreme signals; half precision
and autocast; uneven and empty batches; scales and weights of damaged checkpoints; and trainings that turn non-finite,
which must stop and name the step, the clips and the last good checkpoint.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from attack import Attack, parse_options


def main() -> None:
    """Run the attack."""
    options = parse_options(__doc__)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    attack = Attack("numerics", options)

    import numerics_damage
    import numerics_losses
    import numerics_models
    import numerics_statistics
    import numerics_training
    import torch
    from transformers.utils.logging import disable_progress_bar

    logging.disable(logging.WARNING)
    disable_progress_bar()
    torch.set_num_threads(1)
    numerics_models.attack_signals(attack)
    numerics_damage.attack_damage(attack)
    numerics_losses.attack_others(attack)
    numerics_statistics.attack_calibration(attack)
    numerics_models.attack_precisions(attack)
    numerics_losses.attack_contrastive(attack)
    numerics_statistics.attack_statistics(attack)
    with tempfile.TemporaryDirectory() as folder:  # until the time is over
        numerics_training.attack_trainings(attack, Path(folder))
    attack.finish()


if __name__ == "__main__":
    main()
