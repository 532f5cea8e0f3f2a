"""How much one request may ask for. Each number bounds time or memory that a stranger could otherwise take at will.

What the model itself bounds (its context and its vocabulary) is checked where the model is known.
"""

MAX_BODY_BYTES = 4 << 20  # a context full of text is far smaller
MAX_HEADER_BYTES = 32 << 10
MAX_HEADER_READ_BYTES = 128 << 10  # beyond it the HTTP library gives up before anybody could answer in JSON
BODY_SECONDS = 30.0  # a request must have arrived by then
HEADER_SECONDS = 15.0  # and its headers by then
SEND_SECONDS = 60.0  # a client that takes nothing for so long has gone

MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_CHOICES = 128  # texts that one request asks for: prompts times n
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1024
MAX_BIASES = 1024
MAX_ALTERNATIVES = 20
MAX_INPUTS = 2048  # texts to be embedded by one request
MAX_SCHEMA_BYTES = 64 << 10
MAX_SCHEMA_DEPTH = 32
