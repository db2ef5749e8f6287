"""What is in a picture, before anything is drawn: every choice, thrown without a look at the labels.

The cues of *both* classes of each label are thrown for every picture, and drawing shows those of the label it has. So
labels are independent of everything else by construction, and the same scene can be drawn with another label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from facefeat_jax.avatars import _palette as palette
from facefeat_jax.avatars import _parts as parts
from facefeat_jax.avatars._dice import Dice
from facefeat_jax.avatars._palette import Color
from facefeat_jax.tasks import TASKS

_COMBINATIONS = [
    (g, e, s) for g in TASKS["gender"].classes for e in TASKS["glasses"].classes for s in TASKS["shirt"].classes
]


@dataclass(frozen=True)
class Scene:
    """One picture's contents. `gender`, `glasses` and `shirt` are the labels; nothing else depends on them."""

    seed: int
    index: int
    gender: str
    glasses: str
    shirt: str
    view: parts.View
    light: parts.Light
    face: parts.Face
    lashes: parts.Lashes
    whiskers: parts.Whiskers
    eyewear: parts.Eyewear
    hair: parts.Hair
    clothes: parts.Clothes
    prop: parts.Prop
    backdrop: parts.Backdrop
    occlusion: parts.Occlusion

    @property
    def labels(self) -> dict[str, str]:
        """Class name per task."""
        return {"gender": self.gender, "glasses": self.glasses, "shirt": self.shirt}

    @property
    def groups(self) -> dict[str, str]:
        """What the picture can be sliced by."""
        view = self.view
        pose = "turned" if abs(view.turn) > 0.5 else "tilted" if abs(view.tilt) > math.radians(8) else "straight"
        return {
            "skin": self.face.skin,
            "lighting": self.light.kind,
            "pose": pose,
            "framing": "close" if view.unit > 0.33 else "wide" if view.unit < 0.312 else "medium",
            "hair": self.hair.style,
            "hair_color": self.hair.color_name,
            "headwear": self.hair.hat,
            "outerwear": self.clothes.over,
            "prop": self.prop.kind,
            "background": self.backdrop.kind,
            "occlusion": self.occlusion.kind,
        }

    def dice(self, name: str) -> Dice:
        """Returns the dice for the small details of a part (where the dots of a print are)."""
        return Dice(self.seed, self.index, f"details of {name}")


def sample_scene(seed: int, index: int) -> Scene:
    """Returns the scene of picture `index` of the data set `seed`.

    Labels go through all 32 combinations in every 32 consecutive pictures, in an order shuffled anew each time: exactly
    balanced, and independent of one another.
    """
    order = Dice(seed, index // len(_COMBINATIONS), "order of labels").order(len(_COMBINATIONS))
    gender, glasses, shirt = _COMBINATIONS[order[index % len(_COMBINATIONS)]]

    def dice(name: str) -> Dice:
        return Dice(seed, index, name)

    face, clothes = _face(dice("face")), _clothes(dice("clothes"))
    return Scene(
        seed=seed,
        index=index,
        gender=gender,
        glasses=glasses,
        shirt=shirt,
        view=_view(dice("view")),
        light=_light(dice("light")),
        face=face,
        lashes=_lashes(dice("lashes"), face),
        whiskers=_whiskers(dice("whiskers"), face),
        eyewear=_eyewear(dice("eyewear"), face),
        hair=_hair(dice("hair")),
        clothes=clothes,
        prop=_prop(dice("prop"), clothes.over),
        backdrop=_backdrop(dice("backdrop")),
        occlusion=_occlusion(dice("occlusion")),
    )


def _any_color(dice: Dice, neutral: float = 0.25) -> Color:
    """Returns a shade of one of the eight shirt colours, or now and then of something else."""
    along = (dice.unit(), dice.unit(), dice.unit())
    name, grey, is_neutral = dice.pick(TASKS["shirt"].classes), dice.pick(palette.NEUTRALS), dice.chance(neutral)
    return grey if is_neutral else palette.shade(name, along)


def _contrasting(dice: Dice, colors: tuple[Color, ...], ground: Color, least: float) -> Color:
    """Returns one of the colours that stand out against the ground, at random; the best where none does."""
    good = [c for c in colors if palette.apart(c, ground) >= least]
    return dice.pick(good) if good else max(colors, key=lambda c: palette.apart(c, ground))


def _view(dice: Dice) -> parts.View:
    return parts.View(
        unit=dice.uniform(0.295, 0.35),
        x=0.5 + dice.uniform(-0.19, 0.19),
        y=0.42 + dice.uniform(-0.065, 0.065),
        tilt=math.radians(dice.uniform(-11.0, 11.0)),
        lean=math.radians(dice.around(0.0, 9.0)),
        turn=dice.uniform(-0.8, 0.8),
        mirrored=dice.chance(0.5),
    )


def _light(dice: Dice) -> parts.Light:
    kind = dice.weighted(even=2, side=2, warm=1.2, cool=1.2, dim=1.5, bright=1.2)
    exposure = dice.uniform(0.92, 1.05)
    slope = dice.uniform(0.0, 0.2)
    warmth = dice.around(0.0, 0.03)
    strong = dice.unit()
    if kind == "side":
        slope = 0.35 + 0.27 * strong
    elif kind == "warm":
        warmth = 0.05 + 0.05 * strong
    elif kind == "cool":
        warmth = -0.05 - 0.05 * strong
    elif kind == "dim":
        exposure = 0.56 + 0.18 * strong
    elif kind == "bright":
        exposure = 1.10 + 0.14 * strong
    return parts.Light(
        kind=kind,
        gains=(1.0 + warmth, 1.0 + dice.around(0.0, 0.02), 1.0 - warmth),
        exposure=exposure,
        contrast=dice.uniform(0.80, 1.12),
        slope=slope,
        angle=dice.uniform(0.0, 2.0 * math.pi),
        grain=dice.uniform(0.0, 5.5),
        blur=dice.uniform(0.3, 0.65) if dice.chance(0.3) else 0.0,
    )


def _face(dice: Dice) -> parts.Face:
    skin = dice.pick(tuple(palette.SKINS))
    a, b = palette.SKINS[skin]
    marks = dice.weighted(none=7.5, freckles=1.2, war_paint=0.5, plaster=0.6, shadows=0.7, mask=0.4, patch=0.4)
    return parts.Face(
        skin=skin,
        color=palette.mix(a, b, dice.unit()),
        width=dice.uniform(0.82, 0.92),
        height=dice.uniform(0.90, 1.02),
        jaw=dice.uniform(0.05, 0.28),
        ears=dice.uniform(0.8, 1.2),
        eyes=dice.weighted(round=3, almond=3, dot=1.5, closed=0.6),
        eye_size=dice.uniform(0.95, 1.15),
        eye_gap=dice.uniform(0.35, 0.41),
        iris=dice.pick(palette.IRIS_COLORS),
        gaze=(dice.uniform(-1.0, 1.0), dice.uniform(-0.6, 0.8)),
        nose=dice.pick(("button", "long", "wide")),
        mouth=dice.pick(("smile", "open", "calm", "smirk")),
        blush=dice.uniform(0.15, 0.4) if dice.chance(0.5) else 0.0,
        marks=marks,
        marks_color=_any_color(dice),
        chin_shade=dice.uniform(0.1, 0.35) if dice.chance(0.3) else 0.0,
    )


def _lashes(dice: Dice, face: parts.Face) -> parts.Lashes:
    return parts.Lashes(
        length=dice.uniform(0.2, 0.26),
        count=dice.whole(3, 4),
        lips=_contrasting(dice, palette.LIP_COLORS, face.color, 50.0),
        fullness=dice.uniform(1.05, 1.35),
        brow=dice.uniform(0.035, 0.055),
        arch=dice.uniform(0.05, 0.1),
    )


def _whiskers(dice: Dice, face: parts.Face) -> parts.Whiskers:
    return parts.Whiskers(
        kind=dice.weighted(moustache=2.4, handlebar=2.2, goatee=1.3, beard=0.9, stubble=0.6),
        color=_contrasting(dice, palette.BEARD_COLORS, face.color, 80.0),
        size=dice.uniform(1.1, 1.35),
        brow=dice.uniform(0.14, 0.18),
        slant=dice.uniform(-0.03, 0.05),
    )


def _eyewear(dice: Dice, face: parts.Face) -> parts.Eyewear:
    ground = face.marks_color if face.marks == "mask" else face.color
    return parts.Eyewear(
        shape=dice.pick(("round", "square", "wide", "cat_eye", "aviator", "half_rim")),
        color=_contrasting(dice, palette.FRAME_COLORS, ground, 80.0),
        thickness=dice.uniform(0.085, 0.125),
        size=dice.uniform(1.08, 1.2),
        lens=dice.weighted(clear=6, tinted=1.5, dark=1.5),
        lens_color=_any_color(dice),
        glare=dice.chance(0.6),
    )


def _hair(dice: Dice) -> parts.Hair:
    styles = dict(bald=1, buzz=1, short=1.5, side_part=1.5, quiff=1, curly=1.5, afro=1, mohawk=0.6, bob=1.5)
    style = dice.weighted(**styles, long=1.5, wavy=1.5, bun=1, ponytail=1, pigtails=1)
    color_name = dice.weighted(black=2, dark_brown=2, brown=2, auburn=1.2, blond=2, grey=0.9, white=0.8, dyed=1.6)
    dyed = _any_color(dice, neutral=0.0)
    wobble = palette.mix(palette.HAIR_COLORS[color_name], dice.pick(tuple(palette.HAIR_COLORS.values())), 0.08)
    return parts.Hair(
        style=style,
        color_name=color_name,
        color=dyed if color_name == "dyed" else wobble,
        volume=dice.uniform(0.95, 1.12),
        fringe=dice.unit(),
        hat=dice.weighted(none=8, beanie=0.9, cap=0.9, sunhat=0.6, headband=0.9, headscarf=0.5, spectacles=0.6),
        hat_color=_any_color(dice),
        hat_trim=_any_color(dice),
        earrings=dice.chance(0.3),
    )


def _clothes(dice: Dice) -> parts.Clothes:
    return parts.Clothes(
        along=(dice.unit(), dice.unit(), dice.unit()),
        neck=dice.pick(("crew", "vee", "collar", "turtleneck", "hood")),
        print=dice.weighted(plain=3.5, stripes=1.2, bars=0.8, dots=1.2, badge=1, star=1),
        print_color=_any_color(dice),
        over=dice.weighted(
            none=2.8, jacket=3.3, dungarees=0.25, waistcoat=2.2, braces=2, scarf=0.45, necklace=0.6, tie=0.8
        ),
        over_color=_any_color(dice),
        shoulders=dice.uniform(1.0, 1.4),
    )


def _prop(dice: Dice, over: str) -> parts.Prop:
    side = -1.0 if dice.chance(0.5) else 1.0
    return parts.Prop(
        kind=dice.weighted(none=3, book=2, mug=2, cat=0.4, ball=0.5, flowers=1.8),
        color=_any_color(dice),
        trim=_any_color(dice),
        # To a side, so that the other half of the chest shows; an open jacket shows little of it, so farther there.
        x=side * (dice.uniform(0.45, 0.8) + (0.3 if over == "jacket" else 0.0)),
        y=dice.uniform(1.5, 1.75),
        angle=dice.around(0.0, 0.35),
        size=dice.uniform(0.9, 1.15),
    )


def _backdrop(dice: Dice) -> parts.Backdrop:
    plain, vivid = dice.pick(palette.BACKDROPS), _any_color(dice)
    return parts.Backdrop(
        kind=dice.pick(("plain", "stripes", "tiles", "bokeh", "window", "shelf", "hills")),
        color=vivid if dice.chance(0.7) else plain,
        accents=tuple(_any_color(dice) for _ in range(5)),
        things=dice.whole(0, 5),
    )


def _occlusion(dice: Dice) -> parts.Occlusion:
    kind = dice.weighted(none=7.5, hand=1.4, bar=0.8, blob=1)
    side = -1.0 if dice.chance(0.5) else 1.0
    color, x, y = _any_color(dice), dice.unit(), dice.unit()
    angle, size = dice.uniform(-1.0, 1.0), dice.uniform(0.85, 1.2)
    if kind == "hand":
        # Beside the cheek or below the chin, never over eyes and mouth.
        x, y, angle = side * (0.8 + 0.5 * x), 0.55 + 0.55 * y, side * (-0.25 + 0.3 * angle)
    elif kind == "bar":
        # Steep, so that it can't lie along both eyes.
        x, y, angle = side * (0.1 + 1.0 * x), 0.0, math.radians(35.0) * angle
    elif kind == "blob":
        x, y = side * (1.05 + 0.5 * x), -1.2 + 2.6 * y
    return parts.Occlusion(kind=kind, color=color, x=x, y=y, angle=angle, size=size)
