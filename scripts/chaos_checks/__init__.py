"""The checks of scripts/chaos: what a crash, a power cut and a full disk may take, and what they must not."""
