"""Asks language models: one interface, a model in this process or an OpenAI-compatible endpoint.

* `client`: messages, sampling, replies, the interface `LLMClient` and its errors.
* `in_process`: a Hugging Face model on the rollout engine.
* `server`: HTTP requests, sent again where that may help.
* `finish`: why a reply ended, in the words of many servers.
* `endpoint`: models behind such a server, by chat or by token ids.
* `json_reply`: JSON out of a model's reply.
* `task_client`: gives a model a task until its reply can be used; every reply is kept in a file.
* `settings`: the `llm` block of a configuration, and the client it asks for.
"""
