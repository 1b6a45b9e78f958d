"""``omni eval``: what the assistant hears, sees and knows, by each way in which media reach it."""
