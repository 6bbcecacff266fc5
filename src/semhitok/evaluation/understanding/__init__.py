"""Questions about composed scenes and captions of them, with blind baselines."""
