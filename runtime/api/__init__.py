"""Plain HTTP beside the Realtime protocol, in the shapes of OpenAI's API."""
