"""What the generators share: random words in several languages, fonts, colours, and the page to be rendered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Page:
    """HTML and the size of the window it is rendered in, in pixels."""

    html: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Fonts:
    """Families of Debian's packages, by what they look like."""

    serif: tuple[str, ...]
    sans: tuple[str, ...]
    mono: tuple[str, ...]
    script: tuple[str, ...]


FONTS = Fonts(
    (
        *(
            "Liberation Serif",
            "EB Garamond",
            "Caladea",
            "DejaVu Serif",
            "C059",
            "Nimbus Roman",
            "Noto Serif",
            "GFS Didot",
        ),
        *("Linux Libertine O", "P052", "Vollkorn", "FreeSerif"),
    ),
    (
        *(
            "Liberation Sans",
            "Lato",
            "Carlito",
            "DejaVu Sans",
            "Cantarell",
            "Cabin",
            "Noto Sans",
            "Liberation Sans Narrow",
        ),
        *("Roboto", "Open Sans", "Junction", "Roboto Condensed", "URW Gothic"),
    ),
    (
        *("Liberation Mono", "DejaVu Sans Mono", "Inconsolata", "Hack", "Courier Prime", "OCRA"),
        *("FreeMono", "Fira Code", "Nimbus Mono PS", "OCR B"),
    ),
    ("Dancing Script", "Comic Neue", "Z003", "Lobster Two", "URW Bookman"),
)

_WORDS = {
    "en": "the of and to in for with report meeting delivery account payment order customer service number total date "
    "please address contract agreement period invoice amount due project review quality system market energy result "
    "approved department information",
    "de": "der die das und mit von für zur Bericht Sitzung Lieferung Konto Zahlung Auftrag Kunde Nummer Summe Datum "
    "bitte Anschrift Vertrag Zeitraum Rechnung Betrag fällig Projekt Prüfung Qualität Ergebnis Abteilung genehmigt",
    "fr": "le la les et de pour avec rapport réunion livraison compte paiement commande client numéro total date "
    "adresse contrat période facture montant projet qualité système marché énergie résultat approuvé service",
    "es": "el la los y de para con informe reunión entrega cuenta pago pedido cliente número total fecha dirección "
    "contrato período factura importe proyecto calidad sistema mercado energía resultado aprobado",
    "it": "il la le e di per con rapporto riunione consegna conto pagamento ordine cliente numero totale data "
    "indirizzo contratto periodo fattura importo progetto qualità sistema mercato energia risultato",
    "nl": "de het een en van voor met verslag vergadering levering rekening betaling bestelling klant nummer totaal "
    "datum adres overeenkomst periode factuur bedrag kwaliteit systeem markt resultaat",
    "pt": "o a os e de para com relatório reunião entrega conta pagamento pedido cliente número total data endereço "
    "contrato período fatura valor projeto qualidade sistema mercado energia resultado",
    "ru": "и в на с для отчёт собрание доставка счёт оплата заказ клиент номер итого дата адрес договор период сумма "
    "проект качество система рынок результат",
    "ja": "報告書 会議 配達 口座 支払い 注文 お客様 番号 合計 日付 住所 契約 期間 請求書 金額 計画 品質 結果 承認 情報 について の を は です",
    "zh": "报告 会议 交货 账户 付款 订单 客户 号码 合计 日期 地址 合同 期间 发票 金额 项目 质量 结果 批准 信息 的 和 在 有关",
}
_WEIGHTS = (8, 4, 3, 2, 2, 2, 2, 1, 1, 1)
_NAMES = [
    "Meyer",
    "Lopez",
    "Rossi",
    "Dubois",
    "Jansen",
    "Smith",
    "Costa",
    "Novak",
    "Tanaka",
    "Chen",
    "Brown",
    "Keller",
    "Olsen",
    "Varga",
    "Silva",
    "Moreau",
]
_BRANDS = [
    "Norda",
    "Velto",
    "Kirim",
    "Alvia",
    "Brenn",
    "Solaro",
    "Tekna",
    "Ondal",
    "Mirva",
    "Fluxo",
    "Corvel",
    "Lumen",
    "Arbo",
    "Zenit",
    "Pallas",
    "Quint",
]
_CITIES = [
    "Altdorf",
    "Brennau",
    "Corvo",
    "Delmare",
    "Estwick",
    "Fyrholm",
    "Granby",
    "Holte",
    "Ivera",
    "Jonava",
    "Kesten",
    "Lorbach",
    "Montal",
    "Norby",
]


class Draft:
    """Draws everything random in one picture, from one seed."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.language = self.random.choices(list(_WORDS), _WEIGHTS)[0]
        self._vocabulary = _WORDS[self.language].split()
        self._joint = "" if self.language in ("ja", "zh") else " "

    def one(self, items: Sequence[_T]) -> _T:
        """One of the items."""
        return self.random.choice(items)

    def between(self, low: int, high: int) -> int:
        """A whole number, both limits included."""
        return self.random.randint(low, high)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random.random() < probability

    def words(self, low: int, high: int) -> str:
        """Some words of the picture's language."""
        return self._joint.join(self.one(self._vocabulary) for _ in range(self.between(low, high)))

    def title(self, low: int = 1, high: int = 4) -> str:
        """A few words with a capital letter."""
        text = self.words(low, high)
        return text[:1].upper() + text[1:]

    def sentences(self, low: int, high: int) -> str:
        """A paragraph's text."""
        return " ".join(f"{self.title(6, 16)}." for _ in range(self.between(low, high)))

    def person(self) -> str:
        """A person's name."""
        return f"{self.one('ABCDEFGHJKLMPRST')}. {self.one(_NAMES)}"

    def brand(self) -> str:
        """An invented company."""
        return self.one(_BRANDS)

    def city(self) -> str:
        """An invented town."""
        return self.one(_CITIES)

    def money(self, high: int = 900) -> str:
        """An amount with two decimals."""
        amount = f"{self.random.uniform(1, high):.2f}"
        return amount if self.language in ("en", "ja", "zh") else amount.replace(".", ",")

    def date(self) -> str:
        """A date in one of three notations."""
        day, month, year = self.between(1, 28), self.between(1, 12), self.between(1985, 2026)
        return self.one((f"{day:02}.{month:02}.{year}", f"{year}-{month:02}-{day:02}", f"{month}/{day}/{year}"))

    def font(self, *looks: str) -> str:
        """A CSS font family of one of the looks; Chinese and Japanese fall back to what has their characters."""
        family = self.one(getattr(FONTS, self.one(looks or ("serif", "sans"))))
        return f"'{family}', 'WenQuanYi Micro Hei', 'Noto Sans', sans-serif"

    def colour(self, saturation: tuple[int, int] = (35, 90), lightness: tuple[int, int] = (25, 60)) -> str:
        """A CSS colour."""
        return f"hsl({self.between(0, 359)},{self.between(*saturation)}%,{self.between(*lightness)}%)"

    def paper(self) -> str:
        """White mostly, or the tint of a paper."""
        return self.one(("#fff", "#fff", "#fff", "#fdfcf7", "#f7f3e8", "#f4f4f4", "#eef3f7", "#fbf0d9"))

    def ink(self) -> str:
        """Black mostly, or a dark colour."""
        return self.one(("#000", "#111", "#222", "#1c2533", "#333", "#2b2118"))


Template = Callable[[Draft], Page]


def page(style: str, body: str, width: int, height: int) -> Page:
    """A whole HTML page."""
    return Page(
        f"<!doctype html><meta charset=utf-8><style>*{{box-sizing:border-box}}body{{margin:0;width:{width}px;"
        f"height:{height}px;overflow:hidden}}{style}</style><body>{body}",
        width,
        height,
    )
