"""Two tabs of the page that show one conversation: neither takes from the other, in a real browser."""

import pytest
from browsing import chromium  # noqa: F401  (a fixture)
from page_actions import ask, at, begin, page, photo, system  # noqa: F401

pytestmark = pytest.mark.browser


def heard(tab, act):
    """Does something elsewhere, and waits until this tab has been told."""
    tab.evaluate("() => { document.querySelector('#conversations li').id = 'before' }")
    act()
    tab.locator("#before").wait_for(state="detached")
    tab.wait_for_timeout(300)


def test_what_is_asked_where_another_tab_has_deleted_is_kept(page, at):
    begin(page, at, photo())
    ask(page, "first")
    other = page.context.new_page()
    begin(other, at)
    other.locator(".user .bubble").wait_for()
    page.locator("[aria-label^=Delete]").click()
    other.locator("#note.bad", has_text="deleted in another tab").wait_for()
    assert other.locator("#conversations li").count() == 0
    other.set_input_files("#files", photo("blue"))
    other.locator("#thumbs button").nth(1).wait_for()
    other.locator("#conversations .open", has_text="first").wait_for()
    ask(other, "second", answers=2)
    page.locator("#conversations .open", has_text="first").wait_for()
    other.reload()
    other.locator(".user .bubble").nth(1).wait_for()
    assert other.locator(".user .bubble").all_inner_texts() == ["first", "second"]
    assert other.locator("#shown").is_visible()
    other.close()


def test_what_is_deleted_in_another_tab_stays_away_where_nothing_more_is_asked(page, at):
    begin(page, at, photo())
    ask(page, "first")
    other = page.context.new_page()
    begin(other, at)
    other.locator(".user .bubble").wait_for()
    page.locator("[aria-label^=Delete]").click()
    other.locator("#note.bad", has_text="deleted in another tab").wait_for()
    other.reload()
    other.get_by_text("tiny", exact=True).wait_for()
    assert other.locator(".user .bubble").count() == other.locator("#conversations li").count() == 0
    other.close()


def test_photos_that_two_tabs_add_at_the_same_time_are_all_kept(page, at):
    begin(page, at, photo("red"))
    page.locator("#conversations .open").wait_for()
    other = page.context.new_page()
    other.add_init_script("delete window.BroadcastChannel")  # it learns of the first one's photo too late
    begin(other, at)
    other.locator("#shown").wait_for()
    for tab, color in ((page, "blue"), (other, "green")):
        tab.set_input_files("#files", photo(color, name=f"{color}.png"))
        tab.locator("#thumbs button").nth(1).wait_for()
        ask(tab, f"{color}?")
    other.reload()
    other.locator("#thumbs button").nth(2).wait_for()
    for move in ("The next version", "The version before"):
        button = other.get_by_label(move).first
        if button.is_enabled():
            button.click()
        names = [image.get_attribute("alt") for image in other.locator(".user .pics img").all()]
        assert names[:2] == ["photo.png", f"{other.locator('.user .bubble').inner_text().rstrip('?')}.png"]
    other.close()


def test_what_is_typed_into_an_edit_stays_when_another_tab_saves(page, at):
    begin(page, at, photo("red"), photo("blue", name="blue.png"))
    page.locator("#thumbs button").nth(1).wait_for()
    ask(page, "one")
    other = page.context.new_page()
    begin(other, at)
    other.locator("#thumbs button").first.click()
    other.get_by_text("Edit", exact=True).click()
    other.locator(".edit textarea").press_sequentially("x")
    heard(other, lambda: ask(page, "two", answers=2))
    other.keyboard.type("y")
    assert other.locator(".edit textarea").input_value() == "onexy"
    other.locator(".edit").get_by_text("Cancel").click()
    other.locator(".user .bubble", has_text="two").wait_for()  # and what was missed is there
    assert other.locator("#thumbs button").first.get_attribute("aria-current") == "true"
    other.close()


def test_a_tab_stays_where_it_is_when_another_goes_elsewhere(page, at):
    begin(page, at, photo())
    ask(page, "one")
    other = page.context.new_page()
    begin(other, at)
    other.locator(".user .bubble").wait_for()
    page.get_by_text("Edit", exact=True).click()
    page.locator(".edit textarea").fill("uno")
    heard(other, lambda: page.keyboard.press("Enter"))
    other.get_by_text("1 / 2").wait_for()
    assert other.locator(".user .bubble").inner_text() == "one"
    other.close()
