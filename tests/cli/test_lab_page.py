"""The lab page in a browser: it shows the embedded numbers, obeys mouse and keyboard, says nothing wrong and asks nobody."""

import socket

import pytest

from tests.helpers import chromium, small_lab

pytestmark = pytest.mark.skipif(chromium.found() is None, reason="Chromium is not installed: the lab page is not opened")

DEVICES = {"devices", "devices-table", "pair", "pair-text"}
NETWORK = {"weights", "weights-text", "images", "accuracy", "accuracy-table", "now"}
PARTS = (*DEVICES, *NETWORK)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab") / "lab.html"
    path.write_text(small_lab.page(), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = chromium.Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def data():
    return small_lab.embedded(small_lab.page())


def shown(tab) -> dict[str, str]:
    """What each part of the page shows: its markup."""
    return {part: tab.run(f"document.getElementById('{part}').outerHTML") for part in PARTS}


def cells(tab, table) -> list[list[str]]:
    rows = f"[...document.querySelectorAll('#{table} tbody tr')]"
    return tab.run(f"{rows}.map(r => [...r.querySelectorAll('td')].map(c => c.textContent))")


def text(tab, selector) -> str:
    return tab.run(f"document.querySelector('{selector}').textContent")


def test_no_error_and_no_request_leaves_the_page(browser, address):
    tab = chromium.Tab(browser, address)
    for name in ("time", "target"):
        tab.run(f"document.getElementById('{name}').focus()")
        for key in ("Home", *["ArrowRight"] * 4):
            tab.press(key)
    for button in range(3):
        tab.run(f"document.querySelectorAll('button')[{button}].click()")
    assert tab.said("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
    urls = {event["request"]["url"].split("#")[0] for event in tab.said("Network.requestWillBeSent")}
    assert address in urls and all(url == address or url.startswith("data:") for url in urls)


def test_its_policy_stops_what_would_leave(browser, address):
    """Where a script is made to ask, the page's own policy refuses, and nobody is called."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        tab = chromium.Tab(browser, address)
        refused = tab.run(
            "new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.blockedURI)); "
            f"const i = new Image(); i.src = '{url}'; document.body.append(i); }})"
        )
        assert refused == url
        assert tab.run(f"fetch('{url}').then(() => 'answered', () => 'refused')") == "refused"
        with pytest.raises(TimeoutError):
            server.accept()


def test_every_control_changes_what_it_should_by_keyboard(browser, address):
    tab = chromium.Tab(browser, address)
    changes = {
        "#time": ("ArrowRight", DEVICES | NETWORK),
        "#target": ("ArrowLeft", DEVICES),
        "#noise input:checked": ("ArrowLeft", NETWORK),
        "#compensation input:checked": ("ArrowRight", NETWORK),
    }
    tab.run("document.getElementById('time').focus()")
    tab.press("ArrowRight")
    for control, (key, expected) in changes.items():
        before = shown(tab)
        tab.run(f"document.querySelector('{control}').focus()")
        tab.press(key)
        after = shown(tab)
        assert {part for part in PARTS if before[part] != after[part]} == expected, control
    assert tab.run("location.hash") == "#time=86400&target=0&network=0&compensation=gdc"


def test_tab_reaches_every_control_in_order_and_enter_works_a_button(browser, address):
    tab = chromium.Tab(browser, address)
    reached = []
    for _ in range(7):
        tab.press("Tab")
        reached.append(
            tab.run("document.activeElement.id || document.activeElement.name || document.activeElement.dataset.set")
        )
    assert reached[:4] == ["time", "noise", "target", "compensation"] and len(set(reached)) == 7
    tab.press("Enter")
    assert tab.run("location.hash").endswith("network=0&compensation=gdc")
    tab.run("document.querySelector('#compensation input:checked').focus()")
    assert tab.run("getComputedStyle(document.activeElement.nextSibling).outlineStyle") == "solid"


def accuracy_text(median: float, low: float, high: float) -> str:
    return f"{100 * median:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def test_the_numbers_shown_are_those_embedded(browser, address, data):
    for i, j, network, k in [(0, 0, 0, 0), (2, 1, 1, 1), (3, 2, 0, 2)]:
        time, compensation = data["times"][i], data["compensations"][k]["name"]
        target = data["devices"][j]["target_us"]
        tab = chromium.Tab(
            browser, f"{address}#time={time['t_s']:.0f}&target={target:g}&network={network}&compensation={compensation}"
        )
        assert text(tab, "#time-value") == time["label"] and text(tab, "#target-value") == f"{target:g} µS"
        programmed, read = data["devices"][j]["programmed"], data["devices"][j]["read"][i]
        pairs = [table[what] for table in (programmed, read) for what in ("mean_us", "std_us")]
        expected = [[float(f"{v:.3g}") for v in pair] for pair in pairs]
        table = cells(tab, "devices-table")
        assert [[float(c.removesuffix(" µS")) for c in row] for row in table[:4]] == expected
        assert table[4] == [f"{100 * v:.1f} %" for v in read["zero"]]
        accuracy = [n["accuracy"] for n in data["networks"]]
        wanted = [[a["chip"][c["name"]][i] for c in data["compensations"]] for a in accuracy]
        rows = [[accuracy_text(cell["median"], min(cell["readings"]), max(cell["readings"])) for cell in row] for row in wanted]
        assert cells(tab, "accuracy-table") == [
            [f"{100 * a['software']:.1f}", *row] for a, row in zip(accuracy, rows, strict=True)
        ]
        assert text(tab, "#accuracy-table .chosen") == rows[network][k] and rows[network][k] in text(tab, "#now")
        weights = data["networks"][network]["weights"]["chip"][i]
        error = weights["gdc" if compensation == "gdc" else "none"]["error"]
        assert all(f"{float(f'{v:.3g}'):g}" in text(tab, "#weights-text") for v in error)
        assert ("GDC multiplies" in text(tab, "#weights-text")) == (compensation == "gdc")


def test_the_pair_is_subtracted_as_read(browser, address, data):
    tab = chromium.Tab(browser, address)
    pairs = [(j, i, *(data["pairs"][j]["read_us"][0][n][i] for n in range(2))) for j in range(3) for i in range(4)]
    assert sum(minus > 0.001 for *_, minus in pairs) >= 3
    for j, i, plus, minus in pairs:
        view = f"time={data['times'][i]['t_s']:.0f}&target={data['devices'][j]['target_us']:g}"
        tab.run(f"take('{view}'), show()")
        said = text(tab, "#pair-text")
        assert f"= {plain(plus)} − {plain(minus)} = {plain(plus - minus)} µS" in said
        share = 100 * (plus - minus) / max(data["devices"][j]["target_us"], 1e-9)
        assert abs(float(said.split("that is ")[1].split(" %")[0]) - share) <= 0.51 if j else "should hold 0" in said


def plain(value: float) -> str:
    """A number with three digits, as the page writes it."""
    shown = float(f"{value:.3g}")
    return f"{shown:g}" if abs(shown) >= 1e-4 else "0" if abs(value) < 1e-9 else repr(shown)


@pytest.mark.parametrize("compensation", ["none", "gdc", "adabs"])
def test_the_images_flip_when_the_data_say(browser, address, data, compensation):
    tab = chromium.Tab(browser, f"{address}#time=86400&network=1&compensation={compensation}")
    answers = [t[compensation]["class"] for t in data["networks"][1]["images"]["chip"]]
    right = [[row[k] == image["label"] for row in answers] for k, image in enumerate(data["images"])]
    strips = "[...document.querySelectorAll('#images li')]"
    assert tab.run(f"{strips}.map(l => [...l.querySelectorAll('i')].map(i => !i.classList.contains('wrong')))") == right
    assert tab.run(f"{strips}.map(l => l.querySelector('span').textContent.startsWith('✓'))") == [r[2] for r in right]
    software = data["networks"][1]["images"]["software"]["class"]
    n_right = [sum(c == image["label"] for c, image in zip(software, data["images"], strict=True)), sum(r[2] for r in right)]
    told = text(tab, "#images-text")
    assert told.startswith(f"In software {n_right[0]} of 10 are right") and told.endswith(f": {n_right[1]}.")
    stories = tab.run(f"{strips}.map(l => l.lastChild.textContent)")
    for story, r in zip(stories, right, strict=True):
        first = None if all(r) else data["times"][r.index(False)]["label"]
        assert story == ("right at all times" if all(r) else f"first wrong: {first}" if any(r) else "wrong at all times")
    assert compensation != "none" or not all(map(all, right))
    assert tab.run("[...document.images].every(i => i.complete && i.naturalWidth === 28)")


def test_the_histogram_is_drawn_to_scale(browser, address, data):
    """The filled bars, read off the drawing by the grid's own numbers."""
    tab = chromium.Tab(browser, f"{address}#time=86400&target=25")
    table = data["devices"][2]
    filled = "[...document.querySelectorAll('#devices path')].find(p => p.getAttribute('fill') === 'var(--plus)')"
    path = tab.run(f"{filled}.getAttribute('d')")
    points = [tuple(map(float, p.split(","))) for p in path[1:].split("L")]
    lines = "[...document.querySelectorAll('#devices .grid')]"
    grid = tab.run(f"{lines}.map(l => [Number(l.getAttribute('y1')), Number(l.nextSibling.textContent)])")
    (y0, v0), (y1, v1) = grid[0], grid[-1]
    heights = [v0 + (y - y0) * (v1 - v0) / (y1 - y0) for _, y in points[1:-1:2]]
    assert heights == pytest.approx(
        [100 * s for s in table["read"][2]["shares"][0]], abs=0.2 * (v1 - v0) / (y0 - y1)
    )  # a fifth of a pixel
    assert min(x for x, _ in points) == 46 and v0 == 0


def contrast(a: str, b: str) -> float:
    """WCAG 2's contrast ratio of two colours written "rgb(r, g, b)"."""

    def luminance(colour):
        parts = [int(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_light_and_dark_on_desk_and_phone(browser, address, scheme, width):
    tab = chromium.Tab(browser, f"{address}#time=86400", width, prefers_color_scheme=scheme)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    card = tab.run(style.format(".card", "backgroundColor"))
    assert (contrast(card, "rgb(0, 0, 0)") > 4.5) == (scheme == "light")
    for quiet_or_not in (".card p", "figure text", ".legend", "#about"):
        colour = tab.run(style.format(quiet_or_not, "fill" if "text" in quiet_or_not else "color"))
        assert contrast(colour, card) >= 4.5, quiet_or_not
    for kind, figure in (("none", "accuracy"), ("gdc", "accuracy"), ("adabs", "accuracy"), ("plus", "pair")):
        colour = tab.run(f"getComputedStyle(document.querySelector('#{figure} [stroke=\"var(--{kind})\"]')).stroke")
        assert contrast(colour, card) >= 3, kind  # WCAG 2.1, 1.4.11
    assert tab.run("document.documentElement.scrollWidth") <= width
    overlapping = """[...document.querySelectorAll('figure svg')].flatMap(svg => {
        const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
        return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
            p.left < q.right && q.left < p.right && p.top + 2 < q.bottom && q.top + 2 < p.bottom).map(([b]) => [a, b]));
    })"""
    assert tab.run(overlapping) == []
    assert tab.run("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)")
    clipped = "[...document.querySelectorAll('.bar label, .bar .name, .bar output, .choices span')]"
    assert tab.run(f"{clipped}.filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.textContent)") == []
    assert tab.run("document.querySelector('.bar').offsetHeight") < 230  # what stays in view of a phone


def test_everything_has_a_name_for_screen_readers(browser, address):
    tab = chromium.Tab(browser, f"{address}#time=3600&target=25")
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    named = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    assert [name for role, name in named if role == "slider"] == ["Time", "Conductance"]
    spoken = tab.run("[...document.querySelectorAll('input[type=range]')].map(e => e.getAttribute('aria-valuetext'))")
    assert spoken == ["1 h", "25 µS"]
    assert {name for role, name in named if role == "radiogroup"} == {"Network", "Compensation"}
    assert [name for role, name in named if role == "radio"] == [
        "baseline",
        "noise (η = 3.8 %) and clipping",
        "none",
        "GDC",
        "AdaBS",
    ]
    pictures = [name for role, name in named if role == "image"]
    assert len(pictures) == 5 + 2 * 10 and all(len(name) > 10 for name in pictures)
    assert [name for role, name in named if role == "heading"][0] == "A neural network on phase-change memory"
    assert tab.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_reduced_motion_is_respected(browser, address, motion):
    tab = chromium.Tab(browser, address, prefers_reduced_motion=motion)
    durations = tab.run(
        "[...document.querySelectorAll('*')].flatMap(e => { const s = getComputedStyle(e); "
        "return [s.transitionDuration, s.animationDuration]; })"
    )
    assert (set(durations) == {"0s"}) == (motion == "reduce")
