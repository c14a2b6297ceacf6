"""The shim a broker queries: small, fast, alone; imports models and features, and nothing that learns or orchestrates."""
