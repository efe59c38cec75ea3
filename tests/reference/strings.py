"""Strings for the tokeniser: many scripts, white space, special tokens, odd characters."""

SENTENCES = """A panda sits on a wooden stool in a quiet bamboo forest.
The quick brown fox jumps over the lazy dog
THE QUICK BROWN FOX
don't can't won't it's I'm we're they'll
"quoted" 'single' “curly” ‘curly’ «guillemets» „low“
e-mail@example.com https://example.com/path?x=1&y=2#z
C:\\Users\\me\\file.txt /usr/bin/env ~/.config
3.14159 1,000,000 -42 +7 1e-9 0x1F 50% $9.99 €5 £3 ¥100 ₹20 ₽7
2024-11-23T12:34:56Z 12:30pm #hashtag @user
a+b=c a*b a/b a<b a>b a<=b a!=b x^2 f(x) [i] {j} | & ~ `code`
... … – — ‐ ‑ − _ __ --- ***
Mr. Smith, Ph.D., U.S.A.; etc.!?
CamelCase snake_case kebab-case SCREAMING_SNAKE
antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
zzzz qqqq xxxx jjjj vvvv
Un petit chat dort sur le canapé pendant qu'il neige
Où est le garçon ? Là-bas, près de l'église œuvre Æther
Die Straße führt über grüne Hügel, Äpfel, Öl, Übung, ẞ ß
El niño corrió; ¿dónde está? ¡Aquí! ñandú
À noite, o coração não está só; ações
La città è più bella perché c'è il sole
Tři sta třicet tři stříbrných stříkaček
Zażółć gęślą jaźń
Árvíztűrő tükörfúrógép
Şişli'de İstanbul ılık ğ
Đường phố Hà Nội về đêm rất đẹp
Þetta er íslenska: ð þ æ ö
Blåbærsyltetøy på brødet
Lietuviškai: ąčęėįšųūž
Latviešu: āčēģīķļņšūž
Malti: ħġżċ
Esperanto: ĉĝĥĵŝŭ
Cymraeg: ŵŷ
Маленький кот спит на подоконнике
Съешь же ещё этих мягких французских булок, да выпей чаю
Ґанок, їжак, єнот, і
Ўзбекча ўқиш қизиқ ғоя ҳаёт
Ћирилица: љ њ ђ џ
Қазақ тілі: ә і ң ғ ү ұ қ ө һ
Ένα μικρό καράβι ταξιδεύει
Η γάτα κοιμάται
ὦ ἄνδρες Ἀθηναῖοι
一只熊猫坐在竹林里的木凳上弹吉他。
繁體中文：龍飛鳳舞，臺灣
你好，世界！Hello 世界
日本の小さな町で、猫が眠っています。
ひらがな カタカナ 漢字
ﾊﾝｶｸ ｶﾀｶﾅ ｶﾞｷﾞ
「かぎ括弧」『二重』【隅】・〜ー
작은 고양이가 창가에서 자고 있다
한글 자모: ㄱㄴㄷ ㅏㅑㅓ
각 각
قطة صغيرة تنام على النافذة
مُحَمَّد العَرَبِيَّة
فارسی: گ چ پ ژ ی ک
اردو: ٹ ڈ ڑ ے ہ
٠١٢٣٤٥٦٧٨٩ ۰۱۲۳۴۵۶۷۸۹
כלב קטן רץ על החוף
שָׁלוֹם עולם
एक छोटी बिल्ली खिड़की पर सो रही है
क्ष त्र ज्ञ श्री ॐ
বাংলা ভাষা সুন্দর
ਪੰਜਾਬੀ ਭਾਸ਼ਾ
ગુજરાતી ભાષા
தமிழ் மொழி அழகு
తెలుగు భాష
ಕನ್ನಡ ಭಾಷೆ
മലയാളം ഭാഷ
සිංහල භාෂාව
แมวตัวเล็กนอนอยู่บนหน้าต่าง
ภาษาไทย ๑๒๓
ພາສາລາວ
မြန်မာဘာသာ
ភាសាខ្មែរ
བོད་སྐད
ქართული ენა
Հայերեն լեզու
አማርኛ ቋንቋ
ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ
ᐃᓄᒃᑎᑐᑦ
Монгол ᠮᠣᠩᠭᠣᠯ
ꦧꦱꦗꦮ
😀
😀😃😄
👨‍👩‍👧‍👦 family
👍🏽 thumbs 🇫🇷 flag 🏳️‍🌈
❤️ ♥ ★ ☆ ☃ ✓ ✗
→ ← ↑ ↓ ⇒ ∞ ∑ ∫ √ ≤ ≥ ≠ ≈ ± × ÷
α β γ Δ Ω π µ
½ ¼ ¾ ⅓ ² ³ ¹ ₀ ₁ ™ © ®
Ⅷ ⅷ ① ② ㊙ ㋿ ㌔ ㍿
ﬁ ﬂ ﬀ ﬃ ﬆ ĳ ǆ
ＦＵＬＬ ｗｉｄｔｈ １２３ ！？
Ａ panda　sits　on
é è ñ (composed)
é è ñ (decomposed)
ä̈ ä́̂ a̐
Z͑ͫa̴l̵g̶o̷
Å Å Å
Ω Ω
𝐛𝐨𝐥𝐝 𝑖𝑡𝑎𝑙𝑖𝑐 𝔉𝔯𝔞𝔨 𝟘𝟙𝟚
𠀀𠀁 𪚥 龘 㐀
𓀀 𒀀 𐍈 𐤀
ªº ʰ ˢᵗ ₙ
ſ long s, ŉ
İ i̇ I ı
ΣΊΣΥΦΟΣ ς σ
​zero​width​space
soft­hyphen non breaking  thin hair
‎ltr‏rtl
word⁠joiner﻿bom zero‌non‍joiner
 line paragraph
a b c d e f
replacement � char
private  use 
tag 󠁁 󠁧
noncharacter ￾
_leading underscore
▁lower▁one▁eighth▁block
▁
▁▁a
a▁b
▁ ▁
</s>
<s>
<pad>
<unk>
<extra_id_0>
<extra_id_99>
<extra_id_100>
<extra_id_00>
<extra_id_07>
<extra_id_7>
A <extra_id_0> panda <extra_id_1> sits
A<extra_id_0>panda<extra_id_1>sits
A  <extra_id_0>  panda
<extra_id_0><extra_id_1><extra_id_2>
 <extra_id_3> 
end</s>
middle</s>text
middle </s> text
</s></s>
</s> start
a <pad> b
a<pad>b
<pad><pad>
a <unk> b
a<unk>b
<UNK> <PAD> </S>
< /s> <\\s> </ s>
<extra_id_>
<extra_id_1
extra_id_1>
<<extra_id_1>>
<extra_id_1>.
hello,<extra_id_5>,world
＜extra_id_1＞
＜/s＞
[MASK] [CLS] <mask> <bos> <|endoftext|>
<0x41> <0xE4>
tokenize this: supercalifragilisticexpialidocious!
mixed: 日本語とEnglishとрусскийとالعربية
prompt (high quality:1.2), [blurry], {a|b}, <lora:x:0.8>
4k, 8k, uhd, hdr, f/1.8, 35mm, ISO100
"A man says: 'It's 5 o'clock.'"
One.Two.Three,Four;Five
semi;colon:colon
a,b,c , d ,e
100km/h 5kg 20°C 6'2"
§1 ¶2 †3 ‡4 •5 ‰ ‱
№ ℃ ℉ Å ℓ ℵ
🄰 🅰 Ⓐ ⓐ ⒜
〇 々 〆 〒 ※
ヴ ヷ ゔ が か゛ が
ｰ ー 〜 ～ ~
､ 。 ｡ ｢ ｣
，。！？；：（）【】
﷽ ﷲ ﻻ
ﬠ שׁ
क़ ख़ ग़
각 가 힣 ㈀ ㉠
Ǆ Ǆ ǅ
ẛ̣ ḍ̇ q̣̇
ΐ ΰ ᾳ ᾼ
ﾞ ﾟ カﾞ
㍍ ㌀ ㍻
1⁄2 ⁴⁄₅
…… ‥ ․
″ ‴ ‵ ` ´ ¨
a‿b c⁀d
´ ` ^ ¨ ~ ¸
‼ ⁇ ⁈ ⁉""".split("\n")

WHITE_SPACE = [
    "",
    " ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    " a",
    "a ",
    "  a  ",
    "a  b",
    "a   b    c",
    "\ta\tb",
    "a\nb",
    "a\r\nb\rc",
    "\n\na\n\n",
    "tab\tnew\nline",
    "a\u00a0b\u00a0",
    "\u3000a\u3000b",
    "\u2003em\u2003space\u2009thin",
    "a\u0085b\u2028c\u2029d",
    "a\x0bb\x0cc",
    "a\x00b",
    "\x01\x02\x1f\x7f\x80\x9f",
    "a\u200b b\u200c c\u200d d",
    "\ufeffbom first",
    "trailing newline\n",
    "A panda\n\nsits\t\ton a   stool. ",
    "e\u0301 e\u0300\u0301 \u0301",
    "\u0301leading mark",
    "\U0001f468\u200d\U0001f4bb",
    "\u1100\u1161\u11a8 jamo",
    "\ud7a3\uff21\u212b\ufb01",
    "\u202e reversed \u202c",
    "</s> ",
    " </s>",
    "a </s>\n",
    "<extra_id_0>\n<extra_id_1>",
    "\t<extra_id_2>\tx",
    "x\u00a0<extra_id_2>\u00a0y",
    "<pad> a",
    " <unk> ",
    "<unk> <unk>",
    "<extra_id_0>\u3000x",
]

LONG = [
    " ".join(f"word{i}" for i in range(300)),
    "A panda sits. " * 30,
    "熊猫坐在竹林里" * 40,
    "x" * 700,
    "😀 " * 150,
    # Around the limit of 226: 224, 225, 226 and 227 tokens with the end of sequence.
    " ".join(["the"] * 223),
    " ".join(["the"] * 224),
    " ".join(["the"] * 225),
    " ".join(["the"] * 226),
    " ".join(["the"] * 224) + " </s>",
    " ".join(["the"] * 225) + " <extra_id_0>",
]

STRINGS = list(dict.fromkeys(SENTENCES + WHITE_SPACE + LONG))
