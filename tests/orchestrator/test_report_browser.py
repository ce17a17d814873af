"""The report page in headless Chromium, opened from disk with no network: themes, phone, print, script."""

import json

import browser
import pytest
from sweep_records import sweep_events, write_journal

from orchestrator.report import load_sweep, write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        browser.CHROMIUM is None or browser.DRIVER is None, reason="no chromium, chromedriver"
    ),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of a sweep of 60 trials with early stops, as a file."""
    folder = tmp_path_factory.mktemp("runs")
    config, record, uri = load_sweep(str(folder), write_journal(folder, sweep_events(stop_losers=True)))
    write_report(config, record, uri)
    return f"file://{uri}/report/report.html"


@pytest.fixture(params=[(1280, False), (1280, True), (390, False)], ids=["light", "dark", "phone"])
def driver(request, tmp_path, address):
    width, dark = request.param
    with browser.open_browser(tmp_path / "profile", width=width, dark=dark) as driver:
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
        )
        driver.get(address)
        yield driver


def test_the_page_opens_offline_without_an_error_and_draws_every_plot(driver):
    assert browser.console_errors(driver) == []
    fetched = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    boxes = driver.execute_script(
        "return [...document.querySelectorAll('figure svg')].filter(s => getComputedStyle(s.parentNode).display"
        " !== 'none').map(s => [s.getBoundingClientRect().width, s.getBoundingClientRect().height,"
        " s.querySelectorAll('path').length])"
    )
    assert len(boxes) == 5  # the sixth, curves over hours, waits behind its switch
    assert all(width > 200 and height > 50 and paths > 5 for width, height, paths in boxes)


def test_nothing_but_tables_and_plots_is_wider_than_the_screen(driver):
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_text_stands_out_from_its_background(driver):
    colours = driver.execute_script(
        "const c = (e, k) => getComputedStyle(document.querySelector(e))[k];"
        "return [c('body', 'color'), c('body', 'backgroundColor')]"
    )
    ink, paper = (sum(json.loads(f"[{each[each.index('(') + 1 : -1]}]")[:3]) for each in colours)
    assert abs(ink - paper) > 500


def test_tables_sort_and_rows_light_up_their_curves(tmp_path, address):
    with browser.open_browser(tmp_path / "profile") as driver:
        driver.get(address)
        table = driver.find_element("css selector", "table.sortable")
        head = next(each for each in table.find_elements("tag name", "th") if each.text.startswith("mean"))
        read = (
            "return [...document.querySelector('table.sortable').tBodies[0].rows].map(r =>"
            " parseFloat(r.cells[2].textContent))"
        )
        orders = []
        for _ in range(2):
            head.click()
            orders.append(driver.execute_script(read))
        assert orders[0] == sorted(orders[0], reverse=True)
        assert orders[1] == sorted(orders[1])
        lit = driver.execute_script(
            "document.querySelector('tr[data-keys]').dispatchEvent(new MouseEvent('mouseenter'));"
            "return document.querySelectorAll('svg .tip.hot').length"
        )
        assert lit >= 1


def test_curves_switch_to_device_hours_without_a_script(tmp_path, address):
    with browser.open_browser(tmp_path / "profile") as driver:
        driver.get(address)
        shown = (
            "return [...document.querySelectorAll('figure.images, figure.hours')]"
            ".map(f => getComputedStyle(f).display)"
        )
        assert driver.execute_script(shown) == ["block", "none"]
        driver.find_element("css selector", "label[for=by-hours]").click()
        assert driver.execute_script(shown) == ["none", "block"]


def test_print_shows_both_curves_on_white(tmp_path, address):
    with browser.open_browser(tmp_path / "profile", dark=True) as driver:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        driver.get(address)
        assert (
            driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            == "rgb(255, 255, 255)"
        )
        assert (
            driver.execute_script("return getComputedStyle(document.querySelector('figure.hours')).display")
            == "block"
        )
