"""What is known: records, configuration, features and the warehouse; imports nothing else of the project."""
