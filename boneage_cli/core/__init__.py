"""The engine that every command shares: settings, training, bundles, prediction, evaluation."""
