"""What customers may put into a reminder that goes to a number they have typed."""

from __future__ import annotations

import pytest

from wch_carts.reminder_values import coupon_code, customer_name, own_link, own_path


@pytest.mark.parametrize(
    "name",
    ["Ada", "Ada Lovelace", "Jean-Luc", "O'Brien", "D\u2019Angelo", "Dr. J. R. Miller", "Zoë", "Nguyễn Thị Minh Khai", "محمد علی",
     "مهدی\u200cپور", "שלמה", "नितिन कुमार", "山田太郎", "Никита", "María del Carmen Ruiz", "Gabriel·la", "Jr.", "Maria de los Ángeles García López", "Mohammed bin Salman Al Saud", "Anna Maria von und zu Guttenberg", "Ludwig van der Rohe",
     "Prof. Dr. Ada Miller", "Hr. Müller", "山田 太郎", "Z\u0301oe"],
)  # fmt: skip
def test_names_are_kept(name: str) -> None:
    assert customer_name(name) == name


@pytest.mark.parametrize(
    "words",
    ["", " ", "https://evil.example", "evil.example", "www.evil.example/x", "call +1 555 010 0001", "Ada 2", "a@evil.example",
     "You won!\nOpen this", "Ada\tLovelace", "Ada\u2028Lovelace", "\u202eadA", "{coupon}", "*bold*", "t.me/evil", "Ada 🌸",
     "x" * 41, "Ich weiss wo du wohnst", "Your parcel waits, pay the fee at the usual place", "...", "-", "Ada.Lovelace", "$$$", "evil. com", "paypal. Com", "amazon. de", "t. co", "Z" + "\u0301" * 4 + "oe", "you won a prize go to al", "de la de la de la de la", "Maria de los von und zu der di Ada"],
)  # fmt: skip
def test_what_is_no_name_is_left_out(words: str) -> None:
    assert customer_name(words) == ""


def test_spaces_around_and_within_a_name_are_single() -> None:
    assert customer_name("  Ada   Lovelace ") == customer_name("\u00a0Ada\u00a0\u2009Lovelace\u3000") == "Ada Lovelace"


@pytest.mark.parametrize(("text", "code"), [("SAVE-10", "SAVE-10"), ("frühling_24", "frühling_24"), ("", ""), ("two words", ""),
                                            ("evil.example", ""), ("a/b", ""), ("x" * 21, ""), ("CALL-15550100001", ""), ("5-5-5-0-1-0-0", ""), ("5-5--5-0__1-0-0", ""), ("4K2M91X7Q305", "4K2M91X7Q305"), ("SAVE-2026-11", "SAVE-2026-11")])  # fmt: skip
def test_a_coupon_is_one_word(text: str, code: str) -> None:
    assert coupon_code(text) == code


@pytest.mark.parametrize(
    "link",
    ["https://shop.example/cart?x=1", "https://www.shop.example/cart", "https://shop.example:8443/c", "https://SHOP.example/c",
     ],
)  # fmt: skip
def test_links_to_the_shop_are_kept(link: str) -> None:
    assert own_link(link, {"shop.example"}) == own_path(link, {"shop.example"}) == link


@pytest.mark.parametrize("path", ["c/1?key=abc.de", "/cart", "?cart=1", "", "abc"])
def test_the_template_of_a_button_completes_a_path(path: str) -> None:
    assert own_path(path, ()) == path
    assert own_link(path, {"shop.example"}) == ""


@pytest.mark.parametrize(
    "link",
    ["https://evil.example/", "https://shop.example.evil.example/", "https://evilshop.example/", "http://shop.example/",
     "https://shop.example@evil.example/", "https://user:x@shop.example/", "//evil.example/x", "https:\\\\evil.example",
     "https://evil.example\\@shop.example/", "javascript:alert(1)", "https://shop.example/ x", "https://[", "https:///x",
     "https://shop.example/\n", "/\\evil.example", "evil.example/win", "www.evil.example", "wa.me/15550100001", ".evil.example/x",
     "@evil.example", ":8443/x", "%2eevil.example", "\u3002evil", "\uff0ecom", "\uff45vil\uff0ecom", "\uff61evil", "\u2024com"],
)  # fmt: skip
def test_links_elsewhere_are_left_out(link: str) -> None:
    for hosts in ({"shop.example"}, ()):
        assert own_link(link, hosts) == own_path(link, hosts) == ""


def test_a_host_is_the_same_in_unicode_and_in_ascii() -> None:
    for link in ("https://müller.example/c", "https://xn--mller-kva.example/c"):
        for own in ("müller.example", "xn--mller-kva.example"):
            assert own_link(link, {own}) == link
    assert own_link("https://muller.example/c", {"müller.example"}) == ""
    assert own_link("https:///c", {"x" * 80}) == ""
    assert own_link(f"https://{'ü' * 80}.example/c", {"müller.example"}) == ""
