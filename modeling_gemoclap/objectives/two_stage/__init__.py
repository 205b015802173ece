"""Two-stage supervised contrastive fine-tuning (Xiang): the first stage."""
