"""The page of `dc-rt serve`, as far as it is seen without a browser; bench/soak/page.py has one."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "runtime" / "dc_rt" / "serve" / "page"
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.glob("*.js"))}
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.iterdir())}


class Elements(HTMLParser):
    """All elements of a page with their attributes, and what is written in scripts and styles."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.inline = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.fixture(scope="module")
def elements():
    parser = Elements()
    parser.feed(TEXTS["index.html"])
    return parser


def test_the_page_has_no_script_and_no_style_that_its_policy_forbids(elements):
    assert not elements.inline
    names = {name for _, attributes in elements.found for name in attributes}
    assert not [name for name in names if name == "style" or name.startswith("on")]


def test_all_that_the_page_refers_to_is_beside_it(elements):
    addresses = [
        value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(addresses) > 3
    assert {address.removeprefix("/page/") for address in addresses} <= TEXTS.keys()
    assert set(re.findall(r'from "\./([\w.]+)"', "".join(SCRIPTS.values()))) <= SCRIPTS.keys()


@pytest.mark.parametrize("name", TEXTS)
def test_no_part_of_the_page_names_another_host(name):
    namespace = "http://www.w3.org/2000/svg"
    assert not re.search(r"https?:|url\(|@import", TEXTS[name].replace(namespace, "").replace("url(#g)", ""))


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_make_no_markup_of_text_and_store_nothing(name):
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|localStorage|sessionStorage"
    assert not re.search(forbidden, SCRIPTS[name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_import_what_others_export_and_look_for_elements_that_there_are(name, elements):
    ids = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    assert set(re.findall(r'byId\("([\w-]+)"\)', SCRIPTS[name])) <= ids
    for names, other in re.findall(r'import \{ ([^}]+) \} from "\./([\w.]+)"', SCRIPTS[name]):
        exported = re.findall(r"export (?:async )?(?:function\*?|const|class) (\w+)", SCRIPTS[other])
        assert set(names.split(", ")) <= set(exported)


def test_what_can_be_filled_in_has_a_label(elements):
    labelled = {attributes.get("for") for tag, attributes in elements.found if tag == "label"}
    assert {attributes["id"] for tag, attributes in elements.found if tag == "input"} <= labelled
