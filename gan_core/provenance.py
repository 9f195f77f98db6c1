"""What a generated picture says of itself, in fields that other programs read.

XMP: `Iptc4xmpExt:DigitalSourceType` is "trainedAlgorithmicMedia", IPTC's word for what a trained network has made
(IPTC Photo Metadata Standard 2023.1; it is what C2PA manifests use too). Beside it, a sentence for people.
"""

from PIL.PngImagePlugin import PngInfo

SOFTWARE = "gan_core"
NOTE = "Made by a neural network. Nobody in this picture is real, and no such building stands."
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def disclosure(format: str) -> dict:
    """Options of Pillow's `save` that write this into a "PNG", "JPEG" or "GIF"; GIF has room for the sentence alone."""
    if format == "PNG":
        info = PngInfo()
        info.add_text("Software", SOFTWARE)
        info.add_text("Description", NOTE)
        info.add_itxt("XML:com.adobe.xmp", XMP)
        return {"pnginfo": info}
    if format == "JPEG":
        return {"comment": NOTE.encode(), "xmp": XMP.encode()}
    if format == "GIF":
        return {"comment": NOTE.encode()}
    raise ValueError(f"{format} cannot be labelled here; use PNG, JPEG or GIF")
