"""A client of ComfyUI's HTTP API: upload, queue a prompt, follow it over the websocket, fetch pictures."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

Graph = dict[str, dict[str, Any]]
"""A prompt in API format: node id -> {"class_type": ..., "inputs": {...}}."""
Event = dict[str, Any]
"""A websocket message: {"type": ..., "data": {...}}."""
OnEvent = Callable[[Event], None]
FINAL_EVENTS = ("execution_success", "execution_error", "execution_interrupted")


class PromptRejectedError(RuntimeError):
    """The prompt is not valid, or a part of it is not (the host would run the rest)."""

    def __init__(self, body: dict[str, Any]):
        super().__init__(json.dumps(body, indent=1))
        self.error: dict[str, Any] = body.get("error", {})
        self.node_errors: dict[str, Any] = body.get("node_errors", {})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one prompt."""

    prompt_id: str
    status: str
    """The last event's type: execution_success, execution_error or execution_interrupted."""
    details: dict[str, Any]
    """The last event's data; for an error node_id, exception_type and exception_message."""
    events: list[Event] = field(repr=False)
    seconds: dict[str, float]
    """For each node id that ran, how long."""


def inputs_of(graph: Graph, class_type: str) -> dict[str, Any]:
    """The inputs of the one node of this type; ValueError when there are none or several."""
    (found,) = (node["inputs"] for node in graph.values() if node["class_type"] == class_type)
    return found


class ComfyClient:
    """Talks to one server as one client; every call blocks until it is answered."""

    def __init__(self, url: str):
        self.url = url
        self.client_id = uuid.uuid4().hex

    def get(self, path: str) -> Any:
        """GET, JSON decoded."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        """GET, as it comes."""
        return self._request(path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST a JSON body; the answer decoded, None when empty. Raises PromptRejectedError for a 400 of /prompt."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            answer = self._request(request)
        except urllib.error.HTTPError as error:
            if error.code == 400 and path == "/prompt":
                raise PromptRejectedError(json.loads(error.read())) from error
            raise
        return json.loads(answer) if answer else None

    def upload(self, picture: Path, name: str | None = None) -> str:
        """Upload a picture into the server's input folder; returns the name for LoadImage."""
        boundary = uuid.uuid4().hex
        head = f'Content-Disposition: form-data; name="image"; filename="{name or picture.name}"'
        overwrite = 'Content-Disposition: form-data; name="overwrite"\r\n\r\ntrue'
        body = f"--{boundary}\r\n{overwrite}\r\n--{boundary}\r\n{head}\r\n\r\n".encode()
        body += picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return json.loads(self._request(urllib.request.Request(f"{self.url}/upload/image", body, headers)))["name"]

    def view(self, file: dict[str, str]) -> bytes:
        """The bytes of an output file as /history describes it (filename, subfolder, type)."""
        return self._request(f"/view?{urllib.parse.urlencode(file)}")

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The server's record of a prompt; {} while it is not done."""
        return self.get(f"/history/{prompt_id}").get(prompt_id, {})

    def images(self, prompt_id: str) -> dict[str, list[bytes]]:
        """For each output node of a finished prompt, its pictures as files' bytes."""
        outputs = self.history(prompt_id)["outputs"]
        return {node: [self.view(file) for file in output.get("images", ())] for node, output in outputs.items()}

    def run(self, graph: Graph, on_event: OnEvent | None = None, timeout: float = 240) -> Outcome:
        """Queue a prompt and follow it to its end. Raises PromptRejectedError; TimeoutError after `timeout` seconds."""
        follow = asyncio.wait_for(self._run(graph, on_event), timeout)
        with ThreadPoolExecutor(1) as thread:  # the caller's own thread may have an event loop (playwright's has)
            return thread.submit(asyncio.run, follow).result()

    async def _run(self, graph: Graph, on_event: OnEvent | None) -> Outcome:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self.url}/ws?clientId={self.client_id}") as socket,
        ):
            queued = await asyncio.to_thread(self.post, "/prompt", {"prompt": graph, "client_id": self.client_id})
            if queued["node_errors"]:
                raise PromptRejectedError(queued)
            prompt_id, events, clock = queued["prompt_id"], list[Event](), NodeClock()
            async for message in socket:
                event = json.loads(message.data) if message.type == aiohttp.WSMsgType.TEXT else None
                if event is None or event["data"].get("prompt_id", prompt_id) != prompt_id:
                    continue
                events.append(event)
                clock.hear(event)
                if on_event:
                    on_event(event)
                if event["type"] == "executing" and event["data"]["node"] is None:  # only now is it in the history
                    final = next(e for e in reversed(events) if e["type"] in FINAL_EVENTS)
                    status, details = final["type"], final["data"]
                    return Outcome(
                        prompt_id=prompt_id, status=status, details=details, events=events, seconds=clock.seconds
                    )
        raise ConnectionError("The server closed the websocket before the prompt ended.")

    def _request(self, request: str | urllib.request.Request) -> bytes:
        target = self.url + request if isinstance(request, str) else request
        with urllib.request.urlopen(target, timeout=60) as answer:
            return answer.read()


class NodeClock:
    """Measures nodes by the times at which the server names the next one."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._node: str | None = None
        self._since = 0.0

    def hear(self, event: Event) -> None:
        """Take note of an event at the moment that it arrives."""
        if event["type"] not in ("executing", *FINAL_EVENTS):
            return
        now = time.monotonic()
        if self._node is not None:
            self.seconds[self._node] = self.seconds.get(self._node, 0.0) + now - self._since
        self._node, self._since = event["data"].get("node"), now
