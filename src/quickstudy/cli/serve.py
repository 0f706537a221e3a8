"""``quickstudy serve``: the page and its REST API."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.opened import DeviceOption, EncoderOption, is_trained
from quickstudy.cli.options import busy, say
from quickstudy.names import check_names

__all__ = ["serve"]


def serve(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Yours: models that `quickstudy learn` wrote, to be asked over REST; and learners "
            "that you trained (run folders, files of weights), to be shown beside the others."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; default: this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    name: Annotated[
        list[str] | None, typer.Option(help="Name the server is called by, if not by its address.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode and predict.")] = 2,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait for them.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="For a request, at most.")] = 30.0,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Requests a second, or megapixels, of each client.")
    ] = 50.0,
    most_connections: Annotated[int, typer.Option("--connections", min=1, help="At once.")] = 200,
    memory: Annotated[int, typer.Option(min=1, help="MiB of examples, of all tasks.")] = 1024,
    proxy: Annotated[
        str | None, typer.Option(help="Address of the proxy whose X-Forwarded-For is believed.")
    ] = None,
    encoder: EncoderOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """A page to draw, drop photos and type on, and its REST API; stop it with Ctrl-C.

    Elsewhere than on this machine it asks for a token, which is printed at the start.
    """
    import gc
    import os
    import secrets
    from urllib.parse import quote

    from quickstudy.extras import need
    from quickstudy.summary import read_summary

    for module in ("fastapi", "prometheus_client"):
        need(module, "app")
    uvicorn = need("uvicorn", "app")
    learners = [str(file) for file in files or [] if is_trained(file)]
    learned = [file for file in files or [] if not is_trained(file)]
    for file in learned:
        read_summary(file)
    check_names(encoder=encoder, device=device)
    with busy("starting"):
        import torch

        from quickstudy.app import Limits, Models, Workbench, create_app
        from quickstudy.app.connections import connections
        from quickstudy.memory import return_memory

        return_memory()
        torch.set_num_threads(1)
        limits = Limits(megabytes=memory)
        bench = Workbench(limits, device=device, learners=learners)
        models = Models(learned, encoder=encoder, device=device, limits=limits)
    sys.setswitchinterval(0.0005)  # whoever computes lets the event loop answer soon
    local = host in ("127.0.0.1", "localhost", "::1")
    token = os.environ.get("QUICKSTUDY_TOKEN") or (None if local else secrets.token_urlsafe(16))
    app = create_app(
        bench,
        models=models,
        token=token,
        hosts=None if local else [*(name or ["*"])],
        requests_a_second=rate,
        workers=workers,
        waiting=waiting,
        seconds=seconds,
    )
    bench.warm_up()
    gc.collect()
    gc.freeze()  # looking through torch's own objects again and again would hold up every answer
    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{port}/" + (f"#token={quote(token, safe='')}" if token else ""))
    say(f"the API is described at http://{shown}:{port}/openapi.json")
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        http=connections(most_connections, 10),
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy,
        timeout_graceful_shutdown=3,
    )
