def draw_values(attack):
    pass
