"""Does a family keep its promises?"""
