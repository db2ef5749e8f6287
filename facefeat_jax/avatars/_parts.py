"""The parts of a scene. Lengths are in units of the head unless something else is said, angles in radians."""

from __future__ import annotations

from dataclasses import dataclass

from facefeat_jax.avatars._palette import Color


@dataclass(frozen=True)
class View:
    """Where the camera stands and how the head is held."""

    unit: float  # size of the head's unit (half a face is about 0.87 of it) as a part of the picture's width
    x: float  # head's centre, as a part of the width
    y: float  # head's centre, as a part of the height
    tilt: float  # of the head
    lean: float  # of the body
    turn: float  # of the face to a side, -1 to 1
    mirrored: bool  # whether the whole figure is drawn mirrored


@dataclass(frozen=True)
class Light:
    """Light and camera."""

    kind: str  # even, side, warm, cool, dim or bright
    gains: tuple[float, float, float]  # of the red, green and blue channel
    exposure: float  # brightness factor
    contrast: float  # factor round mid-grey
    slope: float  # how much darker the far side is, 0 to 1
    angle: float  # from where the light comes
    grain: float  # standard deviation of the noise, in levels
    blur: float  # radius, in pixels


@dataclass(frozen=True)
class Face:
    """The face, but for the cues of the labels."""

    skin: str  # name of the tone
    color: Color  # of the skin
    width: float  # half the face's width
    height: float  # half the face's height
    jaw: float  # how much the jaw narrows
    ears: float  # their size
    eyes: str  # round, almond, dot or closed
    eye_size: float  # factor
    eye_gap: float  # from the middle to an eye
    iris: Color
    gaze: tuple[float, float]  # where the eyes look, x and y
    nose: str  # button, long or wide
    mouth: str  # smile, open, calm or smirk
    blush: float  # strength, 0 for none
    marks: str  # none, freckles, war_paint, plaster, shadows (under the eyes), mask or patch
    marks_color: Color  # of paint, mask or patch
    chin_shade: float  # strength of a shadow on the lower face


@dataclass(frozen=True)
class Lashes:
    """The cues that are drawn for the label female."""

    length: float  # of the lashes
    count: int  # of the lashes of an eye
    lips: Color
    fullness: float  # of the lips
    brow: float  # thickness
    arch: float  # of the brows


@dataclass(frozen=True)
class Whiskers:
    """The cues that are drawn for the label male."""

    kind: str  # moustache, handlebar, goatee, beard or stubble
    color: Color  # of whiskers and brows
    size: float  # factor
    brow: float  # thickness
    slant: float  # of the brows


@dataclass(frozen=True)
class Eyewear:
    """The spectacles that are drawn for the label glasses."""

    shape: str  # round, square, wide, cat_eye, aviator or half_rim
    color: Color  # of the frame
    thickness: float  # of the frame
    size: float  # factor
    lens: str  # clear, tinted or dark
    lens_color: Color  # of tinted lenses
    glare: bool  # whether the lenses shine


@dataclass(frozen=True)
class Hair:
    """Hair and what is worn on it."""

    style: str  # bald, buzz, short, side_part, quiff, curly, afro, mohawk, bob, long, wavy, bun, ponytail or pigtails
    color_name: str  # a name of `HAIR_COLORS`
    color: Color
    volume: float  # factor
    fringe: float  # how low the hairline comes, 0 to 1
    hat: str  # none, beanie, cap, sunhat, headband, headscarf or spectacles (pushed up, which is no label)
    hat_color: Color
    hat_trim: Color  # of its band
    earrings: bool


@dataclass(frozen=True)
class Clothes:
    """What is worn."""

    along: tuple[float, float, float]  # which shade of the label's colour the shirt has (see `shade`)
    neck: str  # crew, vee, collar, turtleneck or hood
    print: str  # plain, stripes, bars, dots, badge or star
    print_color: Color
    over: str  # none, jacket, dungarees, waistcoat, braces, scarf, necklace or tie
    over_color: Color
    shoulders: float  # half their width


@dataclass(frozen=True)
class Prop:
    """What is held before the chest."""

    kind: str  # none, book, mug, cat, ball or flowers
    color: Color
    trim: Color  # a second colour
    x: float  # from the body's middle
    y: float
    angle: float
    size: float  # factor


@dataclass(frozen=True)
class Backdrop:
    """What is behind."""

    kind: str  # plain, stripes, tiles, bokeh, window, shelf or hills
    color: Color  # of the wall
    accents: tuple[Color, ...]  # of the things before it
    things: int  # how many patches lie about


@dataclass(frozen=True)
class Occlusion:
    """What comes between camera and figure."""

    kind: str  # none, hand, bar or blob
    color: Color  # of a bar or blob
    x: float
    y: float
    angle: float
    size: float  # factor
