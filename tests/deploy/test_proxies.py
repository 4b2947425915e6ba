"""nginx and HAProxy with the files of `deploy`: only addresses are others."""

from pathlib import Path

from .shops import DEPLOY, ask, free_port, program, running, shop


def replaced(text: str, **others: str) -> str:
    """Each address of a file is there, and becomes another one."""
    for old, new in others.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_the_shop_itself() -> None:
    with shop() as running_shop:
        assert ask(running_shop.port) == (200, f"the shop, process {running_shop.process.pid}\n")
        assert ask(running_shop.port, "/none")[0] == 404
        assert ask(running_shop.pages_port, "/healthz")[0] == 200
        assert "http_server_active_requests" in ask(running_shop.pages_port, "/metrics")[1]
        assert running_shop.stop() == 0


def test_nginx(tmp_path: Path) -> None:
    nginx, front = program("nginx"), free_port()
    with shop() as back:
        kinds = "client_body", "proxy", "fastcgi", "uwsgi", "scgi"
        folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
        text = replaced(
            (DEPLOY / "nginx.conf").read_text(),
            **{
                "shop:8000": f"127.0.0.1:{back.port}",
                "listen 8080": f"listen 127.0.0.1:{front}",
                "\nhttp {": f"\nhttp {{ {folders}",
            },
        )
        config = tmp_path / "nginx.conf"
        config.write_text(text)
        own = f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log;"
        with running([nginx, "-c", str(config), "-g", own], front, tmp_path / "said"):
            for _ in range(50):
                assert ask(front) == (200, f"the shop, process {back.process.pid}\n")


def test_haproxy_and_a_shop_that_stops(tmp_path: Path) -> None:
    """Of the requests that come while one of two shops stops, none fails."""
    haproxy, front = program("haproxy"), free_port()
    with shop() as first, shop() as second:
        servers = {
            f"shop{number}:8000 port 9100": f"127.0.0.1:{back.port} port {back.pages_port}"
            for number, back in ((1, first), (2, second))
        }
        text = (DEPLOY / "haproxy.cfg").read_text()
        config = tmp_path / "haproxy.cfg"
        config.write_text(replaced(text, **{"bind :8080": f"bind 127.0.0.1:{front}"}, **servers))
        with running([haproxy, "-db", "-f", str(config)], front, tmp_path / "said"):
            both = {ask(front) for _ in range(50)}
            assert both == {(200, f"the shop, process {b.process.pid}\n") for b in (first, second)}
            first.process.terminate()
            during = [ask(front) for _ in range(200)]
            assert {status for status, _ in during} == {200}
            assert first.process.wait(30) == 0
            assert ask(front) == (200, f"the shop, process {second.process.pid}\n")
