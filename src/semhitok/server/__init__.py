"""An HTTP server for a loaded model, with the interface of OpenAI's (extra ``server``).

settings    limits and tokens
errors      every refusal as one sentence in OpenAI's shape
schemas     what requests may contain
bodies      requests read within limits of bytes and time
engine      one thread that runs the model; requests join its running batch
admission   how many requests are accepted at once
images      images of requests, decoded in threads
chat, generations, tokens, status    the endpoints
responses   answers as JSON, as events or in binary, until the client is gone
gate        bearer tokens, open requests and metrics, before any endpoint
state       the parts that endpoints share
app         the application
protocol    deadlines of connections
running     from a model to a server that ends in order

Models are reached through ``semhitok.inference`` alone. Nothing is fetched from the network.
"""
