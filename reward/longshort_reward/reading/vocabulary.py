"""The words and commands that the reader of answers (`tokens`) knows, and what it makes of each."""


def words(listed: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(listed.split())


SPACES = words(r"\, \: \; \> \quad \qquad \enspace \thinspace \space \hfill \nobreakspace") | {"\\ ", "~"}
NOTHING = words(
    r"\! \left \right \middle \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \Biggl \Biggr \bigm \Bigm "
    r"\displaystyle \textstyle \scriptstyle \limits \nolimits \bf \rm \it \sf \tt \tiny \small \normalsize \large "
    r"\Large \LARGE \huge \Huge \boldmath \bfseries \itshape \centering \hline \noindent \negthinspace \allowbreak "
    r"\mathstrut \strut \( \) \[ \] \/ \- \. \@ \relax \par \newline \protect \em \bigg\rvert \null \nonumber"
)
"""Commands that change how an answer looks and not what it says."""
DROPPED_WITH_ARGUMENT = words(
    r"\phantom \hphantom \vphantom \tag \label \hspace \vspace \color \footnote \kern \mspace \hskip \ref"
)
PROSE = words(
    r"\text \textbf \textit \textrm \textnormal \textsf \texttt \textsc \textup \textsl \emph \mbox \hbox "
    r"\mathrm \operatorname \operatorname* \mathop \textmd \rmfamily"
)
"""Commands whose argument is prose."""
FONTS = words(
    r"\mathbf \boldsymbol \bm \pmb \mathit \mathsf \mathtt \mathnormal \underline \mathord \mathbin \mathrel "
    r"\mathopen \mathclose \mathpunct \ensuremath \boxed \fbox \framebox \bold \uline \cancelto \colorbox"
)
LETTERS = words(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega infty ell hbar"
)
FUNCTIONS = words(
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan arccot ln log lg exp max min gcd lcm det dim ker deg "
    "arg inf sup lim mod Re Im sqrt"
)
"""Names that are functions where they stand bare; those whose command is no LaTeX are read as LaTeX all the same."""
CONSTANTS = {"inf": r"\infty", "infinity": r"\infty", "Infinity": r"\infty", "oo": r"\infty"} | {
    name: "\\" + name for name in LETTERS if name not in ("mu", "nu", "xi", "ell", "hbar", "infty")
}
ALIASES = {
    **dict.fromkeys((r"\dfrac", r"\tfrac", r"\cfrac", r"\sfrac", r"\nicefrac", r"\xfrac", r"\ffrac"), r"\frac"),
    **dict.fromkeys((r"\dbinom", r"\tbinom"), r"\binom"),
    **dict.fromkeys((r"\leq", r"\leqslant", r"\leqq"), r"\le"),
    **dict.fromkeys((r"\geq", r"\geqslant", r"\geqq"), r"\ge"),
    **dict.fromkeys((r"\ne", r"\neq"), r"\neq"),
    **dict.fromkeys((r"\dots", r"\cdots", r"\dotsc", r"\dotsb", r"\dotsm", r"\dotso", r"\hdots", r"\ldots"), r"\ldots"),
    **dict.fromkeys((r"\Rightarrow", r"\Longrightarrow", r"\implies", r"\longrightarrow"), r"\implies"),
    **dict.fromkeys((r"\rightarrow", r"\to"), r"\to"),
    **dict.fromkeys((r"\approxeq", r"\simeq", r"\thickapprox", r"\approx", r"\doteq"), r"\approx"),
    **dict.fromkeys((r"\bar", r"\overbar", r"\overline"), r"\overline"),
    **dict.fromkeys((r"\widehat", r"\hat"), r"\hat"),
    **dict.fromkeys((r"\lvert", r"\rvert", r"\vert", r"\mid"), "|"),
    **dict.fromkeys((r"\lbrace", r"\{"), r"\{"),
    **dict.fromkeys((r"\rbrace", r"\}"), r"\}"),
    **dict.fromkeys((r"\lbrack",), "["),
    **dict.fromkeys((r"\rbrack",), "]"),
    **dict.fromkeys((r"\langle", r"\lparen"), "("),
    **dict.fromkeys((r"\rangle", r"\rparen"), ")"),
    **dict.fromkeys((r"\degree", r"\textdegree"), "°"),
    **dict.fromkeys((r"\$", r"\textdollar", r"\mathdollar"), "$"),
    **dict.fromkeys((r"\pounds", r"\textsterling"), "£"),
    **dict.fromkeys((r"\euro", r"\texteuro", r"\EUR"), "€"),
    **{r"\yen": "¥", r"\rupee": "₹", r"\%": "%", r"\#": "#", r"\_": "_", r"\&": "&", r"\lt": "<", r"\gt": ">"},
    **{r"\varnothing": r"\emptyset", r"\ast": "*", r"\colon": ":", r"\prime": "'", r"\reals": r"\mathbb{R}"},
    **{r"\lor": r"\vee", r"\land": r"\wedge", r"\backslash": r"\setminus", r"\infin": r"\infty", r"\ohm": r"\Omega"},
}
ARGUMENTS = {
    r"\frac": 2,
    r"\binom": 2,
    r"\stackrel": 2,
    r"\overset": 2,
    r"\underset": 2,
    r"\textcolor": 2,
    **dict.fromkeys(
        words(
            r"\sqrt \overline \dot \hat \vec \tilde \overrightarrow \widetilde \mathbb \mathcal \mathscr \mathfrak "
            r"\pmod \overarc \operatorname \underbrace \overbrace \ddot"
        ),
        1,
    ),
}
"""Commands with arguments, and how many: braces around one of a single character may be left out."""
LAYOUT = words("align aligned equation gather gathered split alignat multline displaymath math flushleft center")
"""Environments around an answer that only lay it out."""
MATRICES = words("matrix pmatrix bmatrix smallmatrix array Bmatrix")

LITTLE_WORDS = words(
    "and or is the of to per at no on if so we it be by as not yes are for one two six ten out day all any non nor but "
    "has was its was can due via vs than"
)
"""Words of two and three letters that are no products of letters. `a` and `an` would be; they never stand alone."""
