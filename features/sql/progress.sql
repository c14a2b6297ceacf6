SELECT digest, "position", n_rows FROM progress WHERE source = $source
