"""Design rules and connectivity of a GDSII file, by KLayout; run by superflow_klayout.ts.

klayout -b -r superflow_klayout.py -rd gds=FILE -rd rules=JSON -rd out=JSON [-rd png=FILE -rd layers_file=LYP]
"""

import json
import pya

with open(rules) as file:
    library = json.load(file)
layers = library["rules"]["gdsLayers"]
wire = library["rules"]

layout = pya.Layout()
layout.read(gds)
dbu = layout.dbu
top = max(layout.top_cells(), key=lambda cell: cell.child_instances())


def index(name):
    return layout.layer(layers[name], 0)


def region(name):
    return pya.Region(top.begin_shapes_rec(index(name)))


def units(um):
    return int(round(um / dbu))


# Design rules -----------------------------------------------------------------------------------
violations = {}
for name in ["horizontal", "vertical"]:
    shapes = region(name)
    violations[name + " width"] = shapes.width_check(units(wire["wireWidthUm"])).count()
    violations[name + " space"] = shapes.space_check(units(wire["wireSpacingUm"])).count()
    around = shapes.merged().enclosing_check(region("via"), units(wire["viaEnclosureUm"]))
    violations[name + " encloses via"] = around.count()
    violations["via outside " + name] = (region("via") - shapes).count()
violations["via size"] = region("via").width_check(units(wire["viaSizeUm"])).count()
violations["via space"] = region("via").space_check(units(wire["wireSpacingUm"])).count()
outlines = pya.Region()
cells = []
for instance in top.each_inst():
    for at in instance.cell_inst.each_cplx_trans():
        box = instance.cell.bbox(index("outline"))
        if not box.empty():
            outlines.insert(pya.Polygon(box).transformed(at))
            cells.append((instance.cell, at))
outlines.merged_semantics = False
violations["cells overlap"] = outlines.merged(False, 2).count()
step = units(library["gridUm"])
violations["cells off grid"] = sum(
    1 for _, at in cells if at.disp.x % step or at.disp.y % step
)

# Connectivity -----------------------------------------------------------------------------------
flat = layout.dup()
flat_top = flat.cell(top.name)
flat_top.flatten(True)
l2n = pya.LayoutToNetlist(pya.RecursiveShapeIterator(flat, flat_top, []))
vertical = l2n.make_layer(flat.layer(layers["vertical"], 0), "vertical")
horizontal = l2n.make_layer(flat.layer(layers["horizontal"], 0), "horizontal")
via = l2n.make_layer(flat.layer(layers["via"], 0), "via")
l2n.connect(vertical)
l2n.connect(horizontal)
l2n.connect(via)
l2n.connect(vertical, via)
l2n.connect(via, horizontal)
l2n.extract_netlist()

# Names of cells are texts on them, those of pins texts within them: kinds 0 and 2 of the label layer.
texts = {}
for shape in top.shapes(layout.layer(layers["label"], 0)).each():
    if shape.is_text():
        texts.setdefault((shape.text_pos.x, shape.text_pos.y), shape.text_string)
pins = {}
for cell, at in cells:
    box = cell.bbox(index("outline"))
    middle = at.trans(box.center())
    name = texts.get((middle.x, middle.y), "unnamed")
    for shape in cell.shapes(layout.layer(layers["label"], 2)).each():
        if shape.is_text():
            # As a point: vectors are turned but not moved.
            point = pya.Point(shape.text_pos.x, shape.text_pos.y)
            pins[name + "." + shape.text_string] = at.trans(point)
nets = {}
for name, point in pins.items():
    net = l2n.probe_net(vertical, pya.Point(point.x, point.y))
    key = "none " + name if net is None else net.cluster_id
    nets.setdefault(key, []).append(name)

with open(out, "w") as file:
    json.dump(
        {
            "top": top.name,
            "cells": len(cells),
            "box": [top.bbox().left, top.bbox().bottom, top.bbox().right, top.bbox().top],
            "violations": violations,
            "nets": sorted(sorted(names) for names in nets.values()),
        },
        file,
    )

# Picture ----------------------------------------------------------------------------------------
if "png" in globals():
    view = pya.LayoutView()
    view.set_config("background-color", "#ffffff")
    view.set_config("grid-visible", "false")
    view.set_config("text-font", "0")
    view.load_layout(gds, True)
    view.load_layer_props(layers_file)
    view.max_hier()
    view.zoom_fit()
    box = top.dbbox()
    view.save_image(png, 1600, max(200, int(1600 * box.height() / box.width())))
